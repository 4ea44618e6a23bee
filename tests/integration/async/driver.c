/* driver: the library's calls that do not wait, one command a line on stdin, one answer a line on stdout, in JSON. The
 * tests (async_test.py) say what to do, and compare.
 *
 *   open TARGET [KEY=NUMBER ...]   the client; keys: deadline_ms channels in_flight_max redeclare
 *   declare NAME COUNT | find NAME COUNT     a leaf of f64: zeros, or one that is there
 *   push | push_cb LEAF=VALUE ...            begins a push of gradients of nothing but VALUE
 *   pull | pull_cb | consistent | delta LEAF ...   begins a pull; delta keeps what it has of a leaf
 *   both LEAF=VALUE ...                      begins a push, and a pull of the same leaves
 *   push_now LEAF=VALUE ...                  pushes, and waits
 *   rows LEAF BYTES STRIDE                   how the leaf's memory is laid out from now on
 *   spoil LEAF                               writes SPOILT over the memory of its delta pulls
 *   wait HANDLE MS | wait_any MS HANDLE ... | done HANDLE | cancel HANDLE | free HANDLE
 *   chain COUNT LEAF=VALUE                   pushes, each begun in the callback of the one before, which it frees
 *   called                                   handles whose callbacks were called, in their order; and lineages met
 *   frozen LEAF
 *   watch SINCE | watch_cb SINCE | next MS | seen | unwatch       SINCE may be `now`
 *   close
 *
 * A handle's answer has code, message and, where it is OK, commit, sent, unchanged and the leaves' values: a number
 * where all elements are equal, and null otherwise. Memory that was lent is overwritten and freed as soon as a handle
 * has ended, for AddressSanitizer to see a late use. Exit code 0 at the end of the input, if that was all understood.
 */
#include <espalier/espalier.h>

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAVES_MAX 64
#define HANDLES_MAX 4096
#define WORDS_MAX 200
#define SPOILT -12345.0

struct leaf {
  char name[64];
  esp_leaf_id id;
  size_t count;         /* elements */
  double *data;         /* of delta pulls, which keep it; with room for rows that lie apart */
  size_t data_bytes;    /* of data */
  struct esp_rows rows; /* how it lies there */
  struct esp_have have; /* for delta pulls */
};

struct operation {
  esp_handle *handle; /* NULL: freed */
  size_t grads_len;
  struct esp_gradient grads[LEAVES_MAX];
  size_t weights_len;
  struct leaf *pulled[LEAVES_MAX];
  struct esp_weight weights[LEAVES_MAX];
  struct esp_have have[LEAVES_MAX];
  struct esp_rows rows[LEAVES_MAX];
  struct esp_push_result push;
  struct esp_pull_result pull;
  bool delta;
  bool taken; /* its end was looked at, and its memory freed */
};

static esp_client *client;
static esp_watch *watch;
static struct leaf leaves[LEAVES_MAX];
static size_t leaves_len;
static struct operation *operations[HANDLES_MAX];
static size_t operations_len;

/* What callbacks have said. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char called[1 << 16]; /* "3:OK, 4:ABORTED, " ... in JSON's strings */
static char seen[1 << 16];   /* events, in JSON */
static unsigned lineages;    /* calls of on_lineage */

static void fatal(const char *what) {
  fprintf(stderr, "driver: %s\n", what);
  exit(2);
}

static void *allocate(size_t size) {
  void *memory = calloc(1, size);
  if (memory == NULL)
    fatal("out of memory");
  return memory;
}

/* ---- answers ---- */

static void print_text(const char *text) {
  putchar('"');
  for (; *text != 0; text++) {
    if (*text == '"' || *text == '\\')
      putchar('\\');
    putchar(*text);
  }
  putchar('"');
}

static void print_code(enum esp_code code, const struct esp_status *st) {
  printf("\"code\": \"%s\", \"message\": ", esp_code_name(code));
  print_text(code == ESP_OK ? "" : st->message);
}

static void answer(enum esp_code code, const struct esp_status *st) {
  putchar('{');
  print_code(code, st);
  printf("}\n");
}

/* ---- leaves ---- */

static struct leaf *leaf_of(const char *name) {
  for (size_t i = 0; i < leaves_len; i++)
    if (strcmp(leaves[i].name, name) == 0)
      return &leaves[i];
  fatal(name);
  return NULL;
}

static void spoil(const struct leaf *leaf, double *data) {
  for (size_t i = 0; i < leaf->data_bytes / sizeof(double); i++)
    data[i] = SPOILT;
}

static void lay_out(struct leaf *leaf, size_t bytes, size_t stride) {
  size_t all = leaf->count * sizeof(double);
  free(leaf->data);
  leaf->rows = (struct esp_rows){.bytes = bytes, .stride = stride};
  leaf->data_bytes = bytes == 0 ? all : all / bytes * stride;
  leaf->data = allocate(leaf->data_bytes);
  spoil(leaf, leaf->data);
}

/* A value that all elements have; NAN where they differ. Fails where something was written between rows. */
static double value_of(const struct leaf *leaf, const double *data) {
  double value = data[0];
  for (size_t i = 0; i < leaf->data_bytes; i += sizeof value) {
    bool between = leaf->rows.bytes != 0 && i % leaf->rows.stride >= leaf->rows.bytes;
    double one = data[i / sizeof value];
    if (between && one != SPOILT)
      fatal("something was written between the rows");
    if (!between && one != value)
      return NAN;
  }
  return value;
}

static void add_leaf(const char *name, size_t count, bool find) {
  struct leaf *leaf = NULL;
  for (size_t i = 0; i < leaves_len && leaf == NULL; i++)
    leaf = strcmp(leaves[i].name, name) == 0 ? &leaves[i] : NULL;
  struct esp_leaf_spec spec = {.path = name, .shape = {count}, .rank = 1, .dtype = ESP_F64};
  esp_leaf_id id = 0;
  struct esp_status st;
  enum esp_code code = find ? esp_find(client, &name, 1, &id, &st) : esp_declare(client, &spec, 1, &id, &st);
  if (code == ESP_OK && leaf == NULL) {
    leaf = &leaves[leaves_len++];
    snprintf(leaf->name, sizeof leaf->name, "%s", name);
    leaf->count = count;
    lay_out(leaf, 0, 0);
  }
  if (code == ESP_OK)
    leaf->id = id;
  answer(code, &st);
}

/* ---- operations ---- */

static struct operation *operation_of(const char *word) {
  size_t index = strtoul(word, NULL, 10);
  if (index >= operations_len)
    fatal("no such handle");
  return operations[index];
}

static void add_gradient(struct operation *op, const char *name, double value) {
  struct leaf *leaf = leaf_of(name);
  double *data = allocate(leaf->count * sizeof *data);
  for (size_t i = 0; i < leaf->count; i++)
    data[i] = value;
  op->grads[op->grads_len++] =
      (struct esp_gradient){.leaf = leaf->id, .data = data, .bytes = leaf->count * sizeof *data};
}

static void add_weight(struct operation *op, const char *name) {
  struct leaf *leaf = leaf_of(name);
  size_t at = op->weights_len++;
  double *data = op->delta ? leaf->data : allocate(leaf->data_bytes);
  if (!op->delta)
    spoil(leaf, data);
  op->pulled[at] = leaf;
  op->weights[at] = (struct esp_weight){.leaf = leaf->id, .data = data, .bytes = leaf->count * sizeof *data};
  op->have[at] = leaf->have;
  op->rows[at] = leaf->rows;
}

/* The memory of a handle that has ended is the caller's. */
static void give_back(struct operation *op) {
  if (op->taken)
    return;
  op->taken = true;
  for (size_t i = 0; i < op->grads_len; i++) {
    memset((void *)op->grads[i].data, 0x5a, op->grads[i].bytes);
    free((void *)op->grads[i].data);
  }
  for (size_t i = 0; i < op->weights_len && op->delta; i++)
    op->pulled[i]->have = op->have[i];
}

static void on_end(void *data, esp_handle *handle, enum esp_code code, const struct esp_status *st) {
  (void)handle;
  if ((code == ESP_OK) != (st->message[0] == 0))
    fatal("a status that does not fit its code");
  char text[64];
  snprintf(text, sizeof text, "\"%zu:%s\", ", (size_t)(uintptr_t)data, esp_code_name(code));
  pthread_mutex_lock(&mutex);
  strncat(called, text, sizeof called - strlen(called) - 1);
  pthread_mutex_unlock(&mutex);
}

static void on_lineage(void *data, uint64_t lineage_old, uint64_t lineage_new) {
  (void)data;
  pthread_mutex_lock(&mutex);
  lineages += lineage_old != lineage_new;
  pthread_mutex_unlock(&mutex);
}

static void begin(struct operation *op, bool call, bool consistent) {
  size_t index = operations_len;
  struct esp_pull_options options = {.consistent = consistent, .have = op->delta ? op->have : NULL, .rows = op->rows};
  esp_handle_callback callback = call ? on_end : NULL;
  void *data = (void *)(uintptr_t)index;
  struct esp_status st;
  enum esp_code code;
  if (op->weights_len == 0)
    code = esp_push_begin(client, op->grads, op->grads_len, callback, data, &op->push, &op->handle, &st);
  else if (op->grads_len == 0)
    code = esp_pull_begin(client, op->weights, op->weights_len, &options, callback, data, &op->pull, &op->handle, &st);
  else
    code = esp_push_pull_begin(client, op->grads, op->grads_len, op->weights, op->weights_len, &options, callback, data,
                               &op->push, &op->pull, &op->handle, &st);
  printf("{\"handle\": %zu, ", index);
  print_code(code, &st);
  printf("}\n");
  operations[operations_len++] = op;
  if (code != ESP_OK)
    give_back(op);
}

static struct operation *operation_new(char **words, size_t len) {
  struct operation *op = allocate(sizeof *op);
  bool pulls = strncmp(words[0], "push", 4) != 0;
  bool pushes = !pulls || strcmp(words[0], "both") == 0;
  op->delta = strcmp(words[0], "delta") == 0;
  for (size_t i = 1; i < len; i++) {
    char *value = strchr(words[i], '=');
    if (value != NULL)
      *value++ = 0;
    if (pushes)
      add_gradient(op, words[i], strtod(value, NULL));
    if (pulls)
      add_weight(op, words[i]);
  }
  return op;
}

static void run_begin(char **words, size_t len) {
  static const char *const known[] = {"push", "push_cb", "pull", "pull_cb", "consistent", "delta", "both"};
  bool found = false;
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    found = found || strcmp(words[0], known[i]) == 0;
  if (!found)
    fatal(words[0]);
  struct operation *op = operation_new(words, len);
  begin(op, strstr(words[0], "_cb") != NULL, strcmp(words[0], "consistent") == 0);
}

static void print_values(const struct operation *op) {
  printf(", \"values\": {");
  for (size_t i = 0; i < op->weights_len; i++) {
    double value = value_of(op->pulled[i], op->weights[i].data);
    printf("%s\"%s\": ", i == 0 ? "" : ", ", op->pulled[i]->name);
    if (isnan(value))
      printf("null");
    else
      printf("%.17g", value);
  }
  printf("}");
}

static void print_push(const struct operation *op) {
  printf(", \"commit\": %" PRIu64 ", \"applied\": %" PRIu64 ", \"frozen\": %" PRIu64 ", \"replayed\": %s",
         op->push.commit, op->push.applied, op->push.frozen, op->push.replayed ? "true" : "false");
}

static void run_push_now(char **words, size_t len) {
  struct operation *op = operation_new(words, len);
  struct esp_status st;
  enum esp_code code = esp_push(client, op->grads, op->grads_len, &op->push, &st);
  putchar('{');
  print_code(code, &st);
  if (code == ESP_OK)
    print_push(op);
  printf("}\n");
  give_back(op);
  free(op);
}

static void run_wait(const char *handle, const char *timeout) {
  struct operation *op = operation_of(handle);
  struct esp_status st;
  enum esp_code code = esp_wait(op->handle, strtoull(timeout, NULL, 10), &st);
  bool done = esp_handle_is_done(op->handle);
  putchar('{');
  print_code(code, &st);
  printf(", \"done\": %s", done ? "true" : "false");
  if (done)
    give_back(op);
  if (code == ESP_OK) {
    print_push(op);
    printf(", \"sent\": %" PRIu64 ", \"unchanged\": %" PRIu64 ", \"pull_commit\": %" PRIu64, op->pull.sent,
           op->pull.unchanged, op->pull.commit);
    print_values(op);
  }
  printf("}\n");
}

static void run_wait_any(char **words, size_t len) {
  esp_handle *handles[WORDS_MAX];
  struct esp_status st;
  size_t index = 0;
  for (size_t i = 2; i < len; i++)
    handles[i - 2] = operation_of(words[i])->handle;
  enum esp_code code = esp_wait_any(handles, len - 2, strtoull(words[1], NULL, 10), &index, &st);
  putchar('{');
  print_code(code, &st);
  printf(", \"index\": %zu}\n", index);
}

static void operation_done(struct operation *op) {
  esp_handle_free(op->handle);
  op->handle = NULL;
  give_back(op);
  for (size_t i = 0; i < op->weights_len && !op->delta; i++)
    free(op->weights[i].data);
  op->weights_len = 0;
}

static void run_free(struct operation *op) {
  operation_done(op);
  answer(ESP_OK, NULL);
}

/* ---- pushes that begin each other ---- */

struct chain {
  struct esp_gradient grad;
  unsigned left;
  unsigned done;
  bool failed;
};
static struct chain chain;

static void next_link(void *data, esp_handle *handle, enum esp_code code, const struct esp_status *st) {
  (void)data;
  (void)st;
  pthread_mutex_lock(&mutex);
  chain.failed = chain.failed || code != ESP_OK;
  chain.done += code == ESP_OK;
  bool more = handle == NULL || chain.left > 0;
  chain.left -= more;
  pthread_mutex_unlock(&mutex);
  esp_handle *next;
  if (more && esp_push_begin(client, &chain.grad, 1, next_link, NULL, NULL, &next, NULL) != ESP_OK)
    fatal("a push can't be begun in a callback");
  esp_handle_free(handle);
}

static void run_chain(char **words) {
  char *value = strchr(words[2], '=');
  *value++ = 0;
  struct operation *op = allocate(sizeof *op);
  add_gradient(op, words[2], strtod(value, NULL));
  op->taken = true;
  chain = (struct chain){.grad = op->grads[0], .left = (unsigned)strtoul(words[1], NULL, 10)};
  free(op);
  struct esp_status st;
  esp_handle *first;
  chain.left--;
  answer(esp_push_begin(client, &chain.grad, 1, next_link, NULL, NULL, &first, &st), &st);
}

static void run_called(void) {
  pthread_mutex_lock(&mutex);
  size_t len = strlen(called);
  printf("{\"called\": [%.*s], \"lineages\": %u, \"chain\": %u, \"chain_failed\": %s}\n", len > 0 ? (int)len - 2 : 0,
         called, lineages, chain.done, chain.failed ? "true" : "false");
  pthread_mutex_unlock(&mutex);
}

/* ---- watches ---- */

static void write_event(char *text, size_t size, const struct esp_layout_event *event) {
  size_t at = (size_t)snprintf(text, size, "{\"epoch\": %" PRIu64 ", \"lineage\": %" PRIu64 ", \"changes\": [",
                               event->epoch, event->lineage);
  for (size_t i = 0; i < event->changes_len && at < size; i++)
    at += (size_t)snprintf(text + at, size - at, "%s{\"leaf\": %" PRIu64 ", \"path\": \"%s\", \"frozen\": %s}",
                           i == 0 ? "" : ", ", event->changes[i].leaf, event->changes[i].path,
                           event->changes[i].frozen ? "true" : "false");
  if (at < size)
    snprintf(text + at, size - at, "]}");
}

static void on_event(void *data, const struct esp_layout_event *event) {
  (void)data;
  char text[4096];
  write_event(text, sizeof text, event);
  pthread_mutex_lock(&mutex);
  if (seen[0] != 0)
    strncat(seen, ", ", sizeof seen - strlen(seen) - 1);
  strncat(seen, text, sizeof seen - strlen(seen) - 1);
  pthread_mutex_unlock(&mutex);
}

static void run_watch(char **words) {
  bool call = strcmp(words[0], "watch_cb") == 0;
  uint64_t since = strcmp(words[1], "now") == 0 ? ESP_WATCH_NOW : strtoull(words[1], NULL, 10);
  struct esp_status st;
  answer(esp_watch_open(client, since, call ? on_event : NULL, NULL, &watch, &st), &st);
}

static void run_next(const char *timeout) {
  const struct esp_layout_event *event;
  struct esp_status st;
  enum esp_code code = esp_watch_next(watch, strtoull(timeout, NULL, 10), &event, &st);
  char text[4096] = "null";
  if (code == ESP_OK)
    write_event(text, sizeof text, event);
  putchar('{');
  print_code(code, &st);
  printf(", \"event\": %s}\n", text);
}

static void run_unwatch(void) {
  esp_watch_close(watch);
  watch = NULL;
  answer(ESP_OK, NULL);
}

/* ---- the client ---- */

static void run_open(char **words, size_t len) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = words[1];
  options.on_lineage = on_lineage;
  for (size_t i = 2; i < len; i++) {
    char *value = strchr(words[i], '=');
    uint64_t number = strtoull(value + 1, NULL, 10);
    *value = 0;
    if (strcmp(words[i], "deadline_ms") == 0)
      options.deadline_ms = number;
    else if (strcmp(words[i], "channels") == 0)
      options.channels = (unsigned)number;
    else if (strcmp(words[i], "in_flight_max") == 0)
      options.in_flight_max = (unsigned)number;
    else if (strcmp(words[i], "redeclare") == 0)
      options.on_new_lineage = ESP_LINEAGE_REDECLARE;
    else
      fatal(words[i]);
  }
  struct esp_status st;
  answer(esp_client_open(&options, &client, &st), &st);
}

/* Everything goes; handles are looked at and freed after their client. */
static void run_close(void) {
  esp_watch_close(watch);
  esp_client_close(client);
  client = NULL;
  watch = NULL;
  printf("{\"ended\": [");
  for (size_t i = 0, printed = 0; i < operations_len; i++) {
    esp_handle *handle = operations[i]->handle;
    if (handle != NULL && !esp_handle_is_done(handle))
      fatal("a handle outlived its client");
    if (handle != NULL)
      printf("%s\"%s\"", printed++ == 0 ? "" : ", ", esp_code_name(esp_wait(handle, 0, NULL)));
    operation_done(operations[i]);
    free(operations[i]);
  }
  operations_len = 0;
  printf("]}\n");
}

static bool run_leaf(char **words, size_t len) {
  if (strcmp(words[0], "declare") == 0 || strcmp(words[0], "find") == 0)
    add_leaf(words[1], strtoul(words[2], NULL, 10), words[0][0] == 'f');
  else if (strcmp(words[0], "rows") == 0 && len == 4) {
    lay_out(leaf_of(words[1]), strtoul(words[2], NULL, 10), strtoul(words[3], NULL, 10));
    answer(ESP_OK, NULL);
  } else if (strcmp(words[0], "spoil") == 0) {
    spoil(leaf_of(words[1]), leaf_of(words[1])->data);
    answer(ESP_OK, NULL);
  } else if (strcmp(words[0], "frozen") == 0) {
    printf("{\"frozen\": %s}\n", esp_leaf_is_frozen(client, leaf_of(words[1])->id) ? "true" : "false");
  } else {
    return false;
  }
  return true;
}

static bool run_handle(char **words, size_t len) {
  if (strcmp(words[0], "wait") == 0) {
    run_wait(words[1], words[2]);
  } else if (strcmp(words[0], "wait_any") == 0) {
    run_wait_any(words, len);
  } else if (strcmp(words[0], "done") == 0) {
    printf("{\"done\": %s}\n", esp_handle_is_done(operation_of(words[1])->handle) ? "true" : "false");
  } else if (strcmp(words[0], "cancel") == 0) {
    esp_cancel(operation_of(words[1])->handle);
    answer(ESP_OK, NULL);
  } else if (strcmp(words[0], "free") == 0) {
    run_free(operation_of(words[1]));
  } else if (strcmp(words[0], "push_now") == 0) {
    run_push_now(words, len);
  } else if (strcmp(words[0], "chain") == 0) {
    run_chain(words);
  } else if (strcmp(words[0], "called") == 0) {
    run_called();
  } else {
    return false;
  }
  return true;
}

static bool run_watching(char **words) {
  if (strncmp(words[0], "watch", 5) == 0)
    run_watch(words);
  else if (strcmp(words[0], "next") == 0)
    run_next(words[1]);
  else if (strcmp(words[0], "unwatch") == 0)
    run_unwatch();
  else if (strcmp(words[0], "seen") == 0) {
    pthread_mutex_lock(&mutex);
    printf("{\"events\": [%s]}\n", seen);
    pthread_mutex_unlock(&mutex);
  } else {
    return false;
  }
  return true;
}

static void run(char **words, size_t len) {
  if (strcmp(words[0], "open") == 0)
    run_open(words, len);
  else if (strcmp(words[0], "close") == 0)
    run_close();
  else if (!run_leaf(words, len) && !run_handle(words, len) && !run_watching(words))
    run_begin(words, len);
  fflush(stdout);
}

int main(void) {
  char *line = NULL;
  size_t capacity = 0;
  while (getline(&line, &capacity, stdin) > 0) {
    char *words[WORDS_MAX], *rest = line;
    size_t len = 0;
    while (len < WORDS_MAX && (words[len] = strtok_r(rest, " \n", &rest)) != NULL)
      len++;
    if (len > 0)
      run(words, len);
  }
  if (client != NULL)
    run_close();
  free((void *)chain.grad.data);
  for (size_t i = 0; i < leaves_len; i++)
    free(leaves[i].data);
  free(line);
  return 0;
}
