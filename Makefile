MODULE_big = follow_primary
EXTENSION = follow_primary
DATA = sql/follow_primary--1.0.sql sql/follow_primary--1.0--1.1.sql
SCRIPTS = src/follow_primary_setup
DOCS = $(wildcard doc/*.md)
PGFILEDESC = "follow_primary - make a node follow the new primary after a failover"

OBJS = \
	src/follow_primary.o \
	src/check.o \
	src/check/candidate.o \
	src/check/item.o \
	src/check/node.o \
	src/cluster.o \
	src/divergence.o \
	src/down.o \
	src/folders.o \
	src/functions.o \
	src/keeper.o \
	src/login.o \
	src/methods.o \
	src/nodes.o \
	src/pcp.o \
	src/own_row.o \
	src/plan.o \
	src/primary_host.o \
	src/process.o \
	src/promoter.o \
	src/readable.o \
	src/record.o \
	src/recovery_conf.o \
	src/home.o \
	src/remote.o \
	src/request.o \
	src/result_set.o \
	src/run.o \
	src/settings.o \
	src/snapshot.o \
	src/slot_mark.o \
	src/sql.o \
	src/ssh/net.o \
	src/ssh/ssh.o \
	src/ssh/ssh_auth.o \
	src/ssh/ssh_hostkey.o \
	src/ssh/ssh_run.o \
	src/ssh/ssh_session.o \
	src/steps/attach.o \
	src/steps/config.o \
	src/steps/connect.o \
	src/steps/copy.o \
	src/steps/copy_command.o \
	src/steps/lost.o \
	src/steps/node.o \
	src/steps/primary.o \
	src/steps/rewind.o \
	src/steps/step.o \
	src/steps/trial.o \
	src/steps/verify.o \
	src/survey.o \
	src/standby_name.o \
	src/sweep.o \
	src/sweeper.o \
	src/switchover.o \
	src/test_doors.o \
	src/timeline.o \
	src/wal.o \
	src/worker.o

REGRESS = install upgrade arguments privileges rendering plan
# Whatever the server's locale is.
REGRESS_OPTS = --encoding=UTF8 --no-locale

# The scripts that run on a node; embedded into the library.
REMOTE_LIBRARIES = $(addprefix src/remote/, lib.sh mark.sh aside.sh control.sh copies.sh folders.sh gate.sh include.sh log.sh lost.sh messages.sh \
	names.sh own.sh port.sh processes.sh recover.sh settings.sh staged.sh standby.sh startable.sh wal.sh)
REMOTE_SCRIPTS = $(sort $(filter-out $(REMOTE_LIBRARIES),$(wildcard src/remote/*.sh)))

PG_CONFIG ?= pg_config
PG_CPPFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -I$(libpq_srcdir) -I$(srcdir)/src
# The library does not depend on the folder that it is built in.
PG_CPPFLAGS += -ffile-prefix-map=$(CURDIR)=.
# libanl: getaddrinfo_a(), a part of libc since glibc 2.34
SHLIB_LINK = $(libpq) -lssh2 -lanl
EXTRA_CLEAN = src/remote_scripts.h

# Where it is not installed yet, the targets that install it still work.
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(and $(wildcard $(PGXS)),$(wildcard $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)/postgres.h)),)
include $(PGXS)
# not among the pages of other extensions
docmoduledir := follow_primary

# PGXS looks for these where they are in the source.
.PHONY: uninstall-rest
uninstall: uninstall-rest
uninstall-rest:
	rm -f $(addprefix '$(DESTDIR)$(docdir)/$(docmoduledir)'/, $(notdir $(DOCS)))
	[ ! -d '$(DESTDIR)$(docdir)/$(docmoduledir)' ] || rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(docdir)/$(docmoduledir)'
	rm -f $(addprefix '$(DESTDIR)$(bindir)'/, $(notdir $(SCRIPTS)))
else
.PHONY: all install clean installcheck
all install clean installcheck:
	@echo 'what $(PG_CONFIG) tells of is not there: install PostgreSQL and its server development files' >&2
	@echo '(as root, test/install-packages does), or set PG_CONFIG' >&2
	@false
endif

# PGXS knows no headers of ours: without this a change of a struct leaves
# objects that disagree about it.
$(OBJS) $(OBJS:.o=.bc): $(filter-out src/remote_scripts.h,$(wildcard src/*.h src/*/*.h))

src/remote.o src/remote.bc: src/remote_scripts.h

src/remote_scripts.h: src/remote/embed.awk $(REMOTE_LIBRARIES) $(REMOTE_SCRIPTS)
	LC_ALL=C awk -f src/remote/embed.awk $(REMOTE_SCRIPTS) > $@.tmp
	mv $@.tmp $@

# Each but deb does all of its set-up, packages included (test/install-packages).
# exec, for a signal that ends make has to reach the script, not a shell before it.
.PHONY: test demo bench check-style deb test-matrix test-faults test-memory
test:
	@exec env PG_CONFIG='$(PG_CONFIG)' test/run $(PROVE_TESTS)

demo:
	@exec env PG_CONFIG='$(PG_CONFIG)' test/demo/run

# Takes a quarter of an hour, on a machine that does nothing else.
bench:
	@PG_CONFIG='$(PG_CONFIG)' test/bench/run $(BENCH_CASES)

check-style:
	@test/check-style

deb:
	@exec .debian/build

test-matrix:
	@exec test/matrix/run build test package bare $(RELEASES)

# FAULTS='sample=400', or 'method=rewind fault=kill', runs a part of it: see test/faults/run.
test-faults:
	@exec env PG_CONFIG='$(PG_CONFIG)' test/faults/run $(foreach fault,$(FAULTS),'$(fault)')

test-memory:
	@exec env PG_CONFIG='$(PG_CONFIG)' test/memory/run $(PROVE_TESTS)
