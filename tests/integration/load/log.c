/* Writing and reading the log: see log.h. A line is one call to stdio, which locks the file: threads share it. A line
 * that can't be written shows at the end, when the program closes its log. */
#include "tests/integration/load/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

void load_log_push(FILE *log, uint64_t seed, uint64_t number, uint64_t named, uint64_t sent,
                   const struct esp_push_result *result) {
  fprintf(log,
          "push %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d %" PRIx64
          " %" PRIx64 "\n",
          seed, number, result->commit, result->epoch, result->applied, result->frozen, result->absent,
          result->replayed, named, sent);
}

void load_log_change(FILE *log, bool is_freeze, const char *selection, const struct esp_apply_result *result) {
  fprintf(log, "%s %" PRIu64 " %" PRIu64 " %s\n", is_freeze ? "freeze" : "thaw", result->commit, result->epoch,
          selection);
}

void load_log_lineage(FILE *log, uint64_t lineage_old, uint64_t lineage_new) {
  fprintf(log, "lineage %" PRIu64 " %" PRIu64 "\n", lineage_old, lineage_new);
}

void load_log_failed(FILE *log, uint64_t seed, uint64_t number, enum esp_code code) {
  fprintf(log, "failed %" PRIu64 " %" PRIu64 " %s\n", seed, number, esp_code_name(code));
}

/* *ret_is_commit: whether the line is one that is kept. */
static bool parse(const char *line, struct load_commit *ret, bool *ret_is_commit) {
  *ret = (struct load_commit){0};
  *ret_is_commit = true;
  if (sscanf(line, "push %" SCNu64 " %" SCNu64 " %" SCNu64 " %*u %" SCNu64 " %*u %*u %*d %*x %" SCNx64, &ret->seed,
             &ret->number, &ret->commit, &ret->applied, &ret->sent) == 5) {
    ret->is_push = true;
    return true;
  }
  ret->is_freeze = strncmp(line, "freeze ", 7) == 0;
  if (sscanf(line, ret->is_freeze ? "freeze %" SCNu64 " %*u %1023s" : "thaw %" SCNu64 " %*u %1023s", &ret->commit,
             ret->selection) == 2)
    return true;
  *ret_is_commit = false;
  return strncmp(line, "lineage ", 8) == 0 || strncmp(line, "failed ", 7) == 0;
}

static int by_commit(const void *a, const void *b) {
  const struct load_commit *left = a, *right = b;
  return (left->commit > right->commit) - (left->commit < right->commit);
}

static bool read_lines(FILE *file, struct load_commit **commits, size_t *len) {
  char line[4096];
  size_t capacity = 0;
  while (fgets(line, sizeof line, file) != NULL) {
    struct load_commit commit;
    bool is_commit;
    if (!parse(line, &commit, &is_commit)) {
      fprintf(stderr, "pusher: not a line of a log: %s\n", line);
      return false;
    }
    if (!is_commit)
      continue;
    if (!esp_grow((void **)commits, &capacity, *len + 1, sizeof **commits)) {
      fprintf(stderr, "pusher: out of memory for the log\n");
      return false;
    }
    (*commits)[(*len)++] = commit;
  }
  return ferror(file) == 0;
}

bool load_log_read(const char *path, struct load_commit **ret, size_t *ret_len) {
  struct load_commit *commits = NULL;
  size_t len = 0;
  FILE *file = fopen(path, "r");
  if (file == NULL) {
    fprintf(stderr, "pusher: %s: %s\n", path, strerror(errno));
    return false;
  }
  bool good = read_lines(file, &commits, &len);
  fclose(file);
  if (!good) {
    esp_free(commits);
    return false;
  }
  if (len > 0)
    qsort(commits, len, sizeof *commits, by_commit);
  *ret = commits;
  *ret_len = len;
  return true;
}
