/* The log of a load: one line for each thing that happened, written at once.
 *
 *   push SEED NUMBER COMMIT EPOCH APPLIED FROZEN ABSENT REPLAYED NAMED SENT
 *   freeze COMMIT EPOCH SELECTION
 *   thaw COMMIT EPOCH SELECTION
 *   lineage OLD NEW
 *   failed SEED NUMBER CODE
 *
 * NAMED and SENT are sets of leaves in hexadecimal: those that the push named, and those of them that the library did
 * not know to be frozen and so sent. */
#ifndef LOAD_LOG_H
#define LOAD_LOG_H

#include <espalier/admin.h>

#include <stdio.h>

/* A commit of the log: a push, or a change by the operator. */
struct load_commit {
  uint64_t commit;
  bool is_push;
  bool is_freeze;       /* of a change; otherwise it is a thaw */
  uint64_t seed;        /* of a push, as are the following */
  uint64_t number;      /* which of its worker's pushes */
  uint64_t applied;     /* leaves */
  uint64_t sent;        /* set of leaves */
  char selection[1024]; /* of a change */
};

void load_log_push(FILE *log, uint64_t seed, uint64_t number, uint64_t named, uint64_t sent,
                   const struct esp_push_result *result);
void load_log_change(FILE *log, bool is_freeze, const char *selection, const struct esp_apply_result *result);
void load_log_lineage(FILE *log, uint64_t lineage_old, uint64_t lineage_new);
void load_log_failed(FILE *log, uint64_t seed, uint64_t number, enum esp_code code);

/* The commits of a log, in their order, to be freed with esp_free; other lines are left out. False, after a line on
 * stderr, where the file can't be read or has a line that is none. */
bool load_log_read(const char *path, struct load_commit **ret, size_t *ret_len);

#endif
