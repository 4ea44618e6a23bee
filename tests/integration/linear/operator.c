/* An operator: freezes, thaws, ties, unties, detaches, attaches and regroups, at random and at its rate, and logs each
 * transaction:
 *
 *   apply OPERATOR START END EPOCH COMMIT OPERATIONS [PATH FIELD FROM TO]...
 *
 * OPERATIONS as in `freeze enc; tie mid.w enc.w transposed`. COMMIT is 0 where nothing changed. All are such that the
 * server has no reason to refuse one. */
#include <espalier/admin.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "tests/integration/linear/linear.h"

#define SECOND_NS UINT64_C(1000000000)

/* Pairs that can be tied, either way round. */
struct pair {
  const char *leaf;
  const char *to;
  bool transposed;
};
static const struct pair pairs[] = {
    {"enc.w", "dec.w", false}, {"mid.w", "head.w", false},  {"enc.w", "mid.w", true},   {"dec.w", "head.w", true},
    {"enc.b", "mid.b", false}, {"dec.b", "head.b", false},  {"enc.b", "head.b", false}, {"enc", "dec", false},
    {"mid", "head", false},    {"big.in", "big.out", true},
};
static const char *const selections[] = {"enc.w",  "enc.b",  "mid.w",   "mid.b",  "dec.w",     "dec.b", "head.w",
                                         "head.b", "big.in", "big.out", "wide.w", "enc",       "mid",   "dec",
                                         "head",   "big",    "name:w",  "name:b", "enc|wide.w"};
static const char *const groups[] = {"default", "two", "four"};
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* How often each kind is tried, of 16. What sets free is more frequent, for selections overlap. */
static const enum esp_op_kind kinds[16] = {ESP_OP_FREEZE, ESP_OP_FREEZE, ESP_OP_FREEZE,  ESP_OP_THAW,
                                           ESP_OP_THAW,   ESP_OP_THAW,   ESP_OP_THAW,    ESP_OP_TIE,
                                           ESP_OP_TIE,    ESP_OP_UNTIE,  ESP_OP_UNTIE,   ESP_OP_DETACH,
                                           ESP_OP_ATTACH, ESP_OP_ATTACH, ESP_OP_REGROUP, ESP_OP_REGROUP};
static const char *const words[] = {
    [ESP_OP_FREEZE] = "freeze", [ESP_OP_THAW] = "thaw",     [ESP_OP_TIE] = "tie",         [ESP_OP_UNTIE] = "untie",
    [ESP_OP_DETACH] = "detach", [ESP_OP_ATTACH] = "attach", [ESP_OP_REGROUP] = "regroup",
};

static uint64_t next(uint64_t *state) {
  uint64_t value = *state += UINT64_C(0x9e3779b97f4a7c15);
  value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
  return value ^ (value >> 31);
}

static struct esp_op choose(uint64_t *state) {
  struct esp_op op = {.kind = kinds[next(state) % LENGTH(kinds)],
                      .selection = selections[next(state) % LENGTH(selections)]};
  if (op.kind == ESP_OP_REGROUP)
    op.to = groups[next(state) % LENGTH(groups)];
  if (op.kind == ESP_OP_TIE) {
    struct pair pair = pairs[next(state) % LENGTH(pairs)];
    bool turned = next(state) % 2 == 0;
    op.selection = turned ? pair.to : pair.leaf;
    op.to = turned ? pair.leaf : pair.to;
    op.transposed = pair.transposed;
  }
  return op;
}

static void log_apply(struct linear *run, uint64_t number, uint64_t start_ns, uint64_t end_ns, const struct esp_op *ops,
                      size_t len, const struct esp_apply_result *result) {
  flockfile(run->log);
  fprintf(run->log, "apply\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t", number, start_ns,
          end_ns, result->epoch, result->commit);
  for (size_t i = 0; i < len; i++)
    fprintf(run->log, "%s%s %s%s%s%s", i > 0 ? "; " : "", words[ops[i].kind], ops[i].selection,
            ops[i].to == NULL ? "" : " ", ops[i].to == NULL ? "" : ops[i].to, ops[i].transposed ? " transposed" : "");
  for (size_t i = 0; i < result->changes_len; i++) {
    const struct esp_apply_change *change = &result->changes[i];
    fprintf(run->log, "\t%s\t%s\t%s\t%s", change->path, change->field, change->from, change->to);
  }
  fputc('\n', run->log);
  funlockfile(run->log);
}

static bool apply(struct linear *run, uint64_t number, esp_client *client, uint64_t *state) {
  struct esp_op ops[LINEAR_OPS_MAX] = {0};
  size_t len = next(state) % 4 == 0 ? 1 + next(state) % LINEAR_OPS_MAX : 1;
  for (size_t i = 0; i < len; i++)
    ops[i] = choose(state);
  struct esp_apply_result *result;
  struct esp_status st;
  uint64_t start_ns = linear_now_ns();
  if (esp_apply(client, ops, len, NULL, &result, &st) != ESP_OK) {
    linear_fail(run, words[ops[0].kind], &st);
    return false;
  }
  log_apply(run, number, start_ns, linear_now_ns(), ops, len, result);
  esp_apply_result_free(result);
  return true;
}

static void wait_until(uint64_t at_ns) {
  struct timespec at = {.tv_sec = (time_t)(at_ns / SECOND_NS), .tv_nsec = (long)(at_ns % SECOND_NS)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
    continue;
}

/* Its turns lie between those of the other operators. One that comes late is made up for. */
void *linear_operate(void *data) {
  struct linear_operator *operator= data;
  struct linear *run = operator->run;
  const struct linear_options *options = &run->options;
  uint64_t state = options->seed * LINEAR_OPERATORS + operator->number, start_ns = linear_now_ns();
  esp_client *client = NULL;
  bool good = linear_open(run, &client);
  for (uint64_t turn = operator->number; good && turn < options->operations; turn += LINEAR_OPERATORS) {
    wait_until(start_ns + turn * SECOND_NS / options->rate);
    good = !atomic_load(&run->stop) && apply(run, operator->number, client, &state);
  }
  esp_client_close(client);
  return NULL;
}
