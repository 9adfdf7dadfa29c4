/*
 * compat.h
 *		All that differs between PostgreSQL versions.
 *
 * Call sites are written for the newest API; a shim keeps its meaning on the
 * older ones.
 */
#ifndef FOLLOW_PRIMARY_COMPAT_H
#define FOLLOW_PRIMARY_COMPAT_H

#if PG_VERSION_NUM >= 120000
#include "access/relation.h"
#else
#include "access/heapam.h"
#endif
#if PG_VERSION_NUM >= 150000
#include "common/compression.h"
#endif
/* Before 17, fd.h has the names of temporary files; file_utils.h of 13 is for programs alone. */
#if PG_VERSION_NUM >= 170000
#include "common/file_utils.h"
#endif
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/procsignal.h"
#include "utils/guc.h"

#if PG_VERSION_NUM < 110000 || PG_VERSION_NUM >= 200000
#error "follow_primary needs PostgreSQL 11 to 19"
#endif

#if PG_VERSION_NUM < 120000
#define DATABASE_OID(tuple)		HeapTupleGetOid(tuple)
#define WL_EXIT_ON_PM_DEATH		WL_POSTMASTER_DEATH
#define pg_pread				pread
#else
#define DATABASE_OID(tuple)		(((Form_pg_database) GETSTRUCT(tuple))->oid)
#endif

/* An LSN as the server prints it: for printf, of its two halves. */
#if PG_VERSION_NUM >= 190000
#define LSN_FORMAT				"%X/%08X"
#else
#define LSN_FORMAT				"%X/%X"
#endif

/*
 * While interrupts are held: what other processes wait for until every process
 * has seen it, from 19 on also a promotion.
 */
#if PG_VERSION_NUM >= 130000
#define ABSORB_BARRIERS() \
	do { \
		if (ProcSignalBarrierPending) \
			ProcessProcSignalBarrier(); \
	} while (0)
#else
#define ABSORB_BARRIERS()		((void) 0)
#endif

/* Asks for the promotion of this standby, and does not wait.  Before 12 there is no switchover. */
#if PG_VERSION_NUM >= 120000
#define ASK_FOR_PROMOTION() \
	((void) DirectFunctionCall2(pg_promote, BoolGetDatum(false), Int32GetDatum(1)))
#else
#define ASK_FOR_PROMOTION()		((void) 0)
#endif

/* SQL: has a row of pg_replication_slots lost WAL that it was to keep? */
#if PG_VERSION_NUM >= 130000
#define SLOT_IS_LOST			"coalesce(wal_status, '') = 'lost'"
#else
#define SLOT_IS_LOST			"false"
#endif

/*
 * SQL: is a row of pg_replication_slots on a standby a logical slot with which subscribers can
 * go on after its promotion?  Before 17 it takes an extension to make one.
 */
#if PG_VERSION_NUM >= 170000
#define SLOT_OUTLIVES_FAILOVER	"slot_type = 'logical' AND synced AND NOT temporary AND invalidation_reason IS NULL"
#else
#define SLOT_OUTLIVES_FAILOVER	"slot_type = 'logical' AND NOT temporary"
#endif

/* SQL: bytes done and in all of the base backup that client $1 takes, and whether it has not begun yet. */
#if PG_VERSION_NUM >= 130000
#define BASE_BACKUP_PROGRESS \
	"SELECT p.backup_streamed, p.backup_total, p.phase = 'waiting for checkpoint to finish' FROM pg_stat_progress_basebackup p " \
	"JOIN pg_stat_activity a USING (pid) WHERE a.application_name = $1"
#else
#define BASE_BACKUP_PROGRESS \
	"SELECT NULL, NULL, false WHERE $1 IS NULL"
#endif

/*
 * Why pg_basebackup would not have this server compress a copy so, as a sentence
 * without its period, or NULL.
 */
#if PG_VERSION_NUM >= 150000
static inline char *
copy_compression_objection(const char *text)
{
	pg_compress_specification specification;
	pg_compress_algorithm algorithm;
	char	   *name = pstrdup(text);
	char	   *detail = strchr(name, ':');
	char	   *objection;

	if (detail)
		*detail++ = '\0';
	if (!parse_compress_algorithm(name, &algorithm) || algorithm == PG_COMPRESSION_NONE)
		return psprintf("There is no compression \"%s\": it must be gzip, lz4 or zstd, or empty", name);
	parse_compress_specification(algorithm, detail, &specification);
	objection = validate_compress_specification(&specification);
	return objection ? psprintf("It is no compression for a copy: %s", objection) : NULL;
}
#else
static inline char *
copy_compression_objection(const char *text)
{
	return "A server compresses what it sends for a copy from PostgreSQL 15 on";
}
#endif

#if PG_VERSION_NUM < 130000
/* fd.c does not count foreign descriptors there. */
#define AcquireExternalFD()		true
#define ReleaseExternalFD()		((void) 0)
#endif

/* The next XID of a checkpoint record, epoch included. */
#if PG_VERSION_NUM >= 140000
#define CHECKPOINT_NEXT_XID(c)	U64FromFullTransactionId((c)->nextXid)
#elif PG_VERSION_NUM >= 120000
#define CHECKPOINT_NEXT_XID(c)	U64FromFullTransactionId((c)->nextFullXid)
#else
#define CHECKPOINT_NEXT_XID(c)	((uint64) (c)->nextXidEpoch << 32 | (c)->nextXid)
#endif

/* The oldest transaction that this process may still have to see. */
#if PG_VERSION_NUM >= 140000
#define OWN_XMIN				(MyProc->xmin)
#else
#define OWN_XMIN				(MyPgXact->xmin)
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn				pg_attribute_noreturn()
#endif

#if PG_VERSION_NUM < 190000
#define CHECKPOINT_FAST			CHECKPOINT_IMMEDIATE
#endif

#if PG_VERSION_NUM < 150000
#define pg_md5_hash(buff, len, hexsum, errstr) \
	(*(errstr) = "out of memory", pg_md5_hash(buff, len, hexsum))
#define shm_mq_send(mqh, nbytes, data, nowait, force_flush) \
	shm_mq_send(mqh, nbytes, data, nowait)
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

#endif							/* FOLLOW_PRIMARY_COMPAT_H */
