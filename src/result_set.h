/*
 * result_set.h
 *		What a function returns that returns a set of rows.
 */
#ifndef FOLLOW_PRIMARY_RESULT_SET_H
#define FOLLOW_PRIMARY_RESULT_SET_H

#include "fmgr.h"
#include "utils/tuplestore.h"

/* Raises 0A000 where the caller cannot take a set. */
extern void require_set(FunctionCallInfo fcinfo);

/*
 * Begins the function's result, a set of rows of *tupdesc, in the caller's memory.
 * After require_set().
 */
extern Tuplestorestate *begin_set(FunctionCallInfo fcinfo, TupleDesc *tupdesc);

#endif							/* FOLLOW_PRIMARY_RESULT_SET_H */
