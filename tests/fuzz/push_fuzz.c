/* A session with an engine, driven by the input: pushes and stages in pieces cut anywhere, in any order, of any
 * header; commits, cancellations, freezes, declarations, a clock that jumps. Whatever was refused has changed nothing
 * (commit number, epoch and digest are what they were), and at the end nothing is staged and nothing leaks. */
#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/engine/fixture.h"

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

enum { SLOTS_LEN = 4, STAGED_MAX = 8192 };

struct slot {
  struct esp_push *push; /* NULL: free */
  struct outcome outcome;
  bool is_stage;
};

struct world {
  struct fixture fixture;
  struct slot slots[SLOTS_LEN];
  uint64_t session; /* that joined last */
  uint64_t stage;   /* that was kept last */
  uint64_t commit;  /* of now, as the next */
  uint64_t epoch;
  struct esp_digest digest;
};

static const char *const paths[] = {"a", "b.x", "b.y", "b.buffer", "assigned.w", "new", "b", "a.below", ""};
static const char *const selections[] = {"", "a", "b", "b.*", "**", "nowhere", "**.x", "a |"};

/* ---- what must hold ---- */

/* The place in the order of commits, which is cheap to ask for. */
static void expect_same_place(struct world *world) {
  struct esp_engine_info info;
  esp_engine_info(world->fixture.engine, &info);
  ESP_CHECK(info.commit == world->commit && info.epoch == world->epoch);
}

/* Every bit: values, optimizer state and step counts. */
static struct esp_digest digest_of(struct world *world) {
  struct outcome outcome;
  ESP_CHECK(digest(&world->fixture, "", &outcome) == ESP_OK);
  return outcome.digest;
}

static void expect_unchanged(struct world *world) {
  struct esp_digest now = digest_of(world);
  ESP_CHECK(memcmp(&now, &world->digest, sizeof now) == 0);
  expect_same_place(world);
}

/* What is compared with from here on. */
static void look(struct world *world) {
  struct esp_engine_info info;
  esp_engine_info(world->fixture.engine, &info);
  world->commit = info.commit;
  world->epoch = info.epoch;
  world->digest = digest_of(world);
}

/* A refusal changed nothing. */
static void judge(struct world *world, enum esp_code code, const struct esp_status *st) {
  if (code == ESP_OK) {
    look(world);
  } else {
    esp_fuzz_check_failure(code, st);
    expect_unchanged(world);
  }
}

/* ---- steps ---- */

static struct slot *slot_of(struct world *world, struct esp_fuzz_input *input) {
  return &world->slots[esp_fuzz_below(input, SLOTS_LEN)];
}

static void slot_free(struct slot *slot) {
  esp_push_free(slot->push);
  slot->push = NULL;
}

/* Of a push that is likely to be taken, with a wrong number here and there. */
static struct esp_push_header make_header(const struct world *world, struct esp_fuzz_input *input, bool is_stage) {
  struct esp_push_header header = {.leaf_count = esp_fuzz_below(input, 6), .total_bytes = esp_fuzz_byte(input)};
  uint8_t odd = esp_fuzz_byte(input);
  if (!is_stage && (odd & 1) != 0) {
    header.session = world->session;
    header.sequence = esp_fuzz_byte(input);
  }
  if ((odd & 2) != 0)
    header.total_bytes = esp_fuzz_number(input);
  if ((odd & 4) != 0)
    header.leaf_count = esp_fuzz_number(input);
  if ((odd & 8) != 0)
    header.wait_ms = esp_fuzz_number(input);
  if ((odd & 16) != 0)
    header.require_epoch = esp_fuzz_byte(input);
  if ((odd & 32) != 0)
    header.lineage = esp_fuzz_byte(input);
  return header;
}

static void open_slot(struct world *world, struct esp_fuzz_input *input, bool is_stage) {
  struct slot *slot = slot_of(world, input);
  slot_free(slot);
  outcome_init(&slot->outcome);
  slot->is_stage = is_stage;
  struct esp_push_header header = make_header(world, input, is_stage);
  struct esp_status st;
  enum esp_code code = (is_stage ? esp_stage_new : esp_push_new)(world->fixture.engine, &header, on_push,
                                                                 &slot->outcome, &slot->push, &st);
  if (code != ESP_OK)
    esp_fuzz_check_failure(code, &st);
  expect_same_place(world);
}

static void describe_tensor(struct esp_piece *piece, struct esp_fuzz_input *input) {
  piece->has_tensor = true;
  piece->dtype = (enum esp_dtype)esp_fuzz_below(input, 6);
  piece->has_shape = true;
  piece->shape.rank = (unsigned)esp_fuzz_below(input, ESP_RANK_MAX + 1);
  for (unsigned i = 0; i < piece->shape.rank; i++)
    piece->shape.dims[i] = esp_fuzz_number(input);
  piece->tensor_bytes = esp_fuzz_number(input);
  piece->rows_len = esp_fuzz_below(input, 2);
}

/* A piece of the bytes that follow in the input, in two spans. */
static struct esp_piece make_piece(struct esp_fuzz_input *input, struct esp_span spans[2]) {
  struct esp_piece piece = {.path = ""};
  uint8_t odd = esp_fuzz_byte(input);
  piece.leaf_id = esp_fuzz_below(input, 8);
  if ((odd & 1) != 0) {
    piece.leaf_id = 0;
    piece.path = paths[esp_fuzz_below(input, LEN(paths))];
    piece.path_len = strlen(piece.path);
  }
  piece.index = esp_fuzz_below(input, 4);
  piece.offset = (odd & 2) != 0 ? esp_fuzz_number(input) : esp_fuzz_below(input, 64);
  if ((odd & 4) != 0)
    describe_tensor(&piece, input);
  size_t len = esp_fuzz_below(input, 65);
  len = len < input->left ? len : input->left;
  size_t cut = len / (2 + odd % 5);
  spans[0] = (struct esp_span){.data = input->at, .len = cut};
  spans[1] = (struct esp_span){.data = input->at + cut, .len = len - cut};
  input->at += len;
  input->left -= len;
  piece.data = esp_cursor_init(spans, 2);
  return piece;
}

static void feed_slot(struct world *world, struct esp_fuzz_input *input) {
  struct slot *slot = slot_of(world, input);
  struct esp_span spans[2];
  struct esp_piece piece = make_piece(input, spans);
  if (slot->push == NULL || !slot->outcome.ready)
    return;
  struct esp_status st;
  enum esp_code code = esp_push_feed(slot->push, &piece, &st);
  if (code != ESP_OK) {
    esp_fuzz_check_failure(code, &st);
    slot_free(slot);
  }
  expect_same_place(world);
}

static void end_slot(struct world *world, struct esp_fuzz_input *input) {
  struct slot *slot = slot_of(world, input);
  if (slot->push == NULL || !slot->outcome.ready || !esp_push_is_whole(slot->push))
    return;
  if (slot->is_stage) {
    struct esp_status st;
    uint64_t expires_ms;
    enum esp_code code = esp_stage_keep(slot->push, &world->stage, &expires_ms, &st);
    slot->push = NULL;
    if (code != ESP_OK)
      esp_fuzz_check_failure(code, &st);
    expect_same_place(world);
    return;
  }
  esp_push_commit(slot->push);
  outcome_wait(&slot->outcome);
  ESP_CHECK(slot->outcome.done == 1);
  judge(world, slot->outcome.code, &slot->outcome.st);
  slot_free(slot);
}

static void drop_slot(struct world *world, struct esp_fuzz_input *input) {
  slot_free(slot_of(world, input));
  expect_same_place(world);
}

static void change(struct world *world, struct esp_fuzz_input *input) {
  struct esp_operation ops[2];
  size_t len = 1 + esp_fuzz_below(input, 2);
  for (size_t i = 0; i < len; i++) {
    ops[i] = (struct esp_operation){.kind = (enum esp_operation_kind)esp_fuzz_below(input, 3),
                                    .selection = selections[esp_fuzz_below(input, LEN(selections))]};
    ops[i].reset_state = ops[i].kind != ESP_OPERATION_FREEZE && esp_fuzz_below(input, 2) == 1;
    ops[i].stage = world->stage;
  }
  struct esp_apply_request request = {.operations = ops, .operations_len = len, .idempotency_key = ""};
  uint8_t odd = esp_fuzz_byte(input);
  request.dry_run = (odd & 1) != 0;
  request.if_epoch = (odd & 2) != 0 ? esp_fuzz_byte(input) : 0;
  request.max_leaves = (odd & 4) != 0 ? esp_fuzz_byte(input) : 0;
  struct outcome outcome;
  (void)apply_request(&world->fixture, &request, &outcome);
  judge(world, outcome.code, &outcome.st);
}

/* Values of leaves that `follows` are fed from the input; with too few the declaration is refused. */
static enum esp_code feed_declaration(struct esp_declare *declare, struct esp_fuzz_input *input,
                                      struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t i = esp_fuzz_below(input, 4); code == ESP_OK && i > 0; i--) {
    struct esp_span spans[2];
    struct esp_piece piece = make_piece(input, spans);
    code = esp_declare_feed(declare, &piece, st);
  }
  return code;
}

static enum esp_code add_leaves(struct esp_declare *declare, struct esp_fuzz_input *input, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t i = esp_fuzz_below(input, 4); code == ESP_OK && i > 0; i--) {
    struct esp_declare_leaf leaf = vector_f64(paths[esp_fuzz_below(input, LEN(paths))], esp_fuzz_below(input, 5));
    leaf.dtype = (enum esp_dtype)esp_fuzz_below(input, 5);
    leaf.init.kind = (enum esp_init_kind)esp_fuzz_below(input, 5);
    leaf.frozen = esp_fuzz_below(input, 2) == 1;
    code = esp_declare_add_leaf(declare, &leaf, st);
  }
  return code;
}

static void declare_some(struct world *world, struct esp_fuzz_input *input) {
  struct outcome ready, outcome;
  struct esp_declare *declare = NULL;
  outcome_init(&ready);
  outcome_init(&outcome);
  struct esp_push_header header = {.leaf_count = esp_fuzz_below(input, 3), .total_bytes = esp_fuzz_byte(input)};
  enum esp_code code = esp_declare_new(world->fixture.engine, &header, on_push, &ready, &declare, &outcome.st);
  bool is_waiting = code == ESP_OK && !ready.ready;
  if (code == ESP_OK && !is_waiting)
    code = add_leaves(declare, input, &outcome.st);
  if (code == ESP_OK && !is_waiting)
    code = feed_declaration(declare, input, &outcome.st);
  if (code == ESP_OK && !is_waiting) {
    esp_declare_commit(declare, on_declare, &outcome);
    outcome_wait(&outcome);
    judge(world, outcome.code, &outcome.st);
    return;
  }
  esp_declare_free(declare);
  if (code != ESP_OK)
    esp_fuzz_check_failure(code, &outcome.st);
  expect_same_place(world);
}

static void join(struct world *world, struct esp_fuzz_input *input) {
  struct esp_join reply;
  struct esp_status st;
  uint64_t resume = esp_fuzz_below(input, 2) == 0 ? 0 : world->session;
  enum esp_code code = esp_session_join(world->fixture.engine, "worker", resume, &reply, &st);
  if (code == ESP_OK)
    world->session = reply.session;
  else
    esp_fuzz_check_failure(code, &st);
  expect_same_place(world);
}

static void leave(struct world *world, struct esp_fuzz_input *input) {
  (void)input;
  struct esp_status st;
  if (esp_session_leave(world->fixture.engine, world->session, &st) != ESP_OK)
    esp_fuzz_check_failure(st.code, &st);
  expect_same_place(world);
}

static void wait_a_while(struct world *world, struct esp_fuzz_input *input) {
  esp_env_virtual_advance(world->fixture.twin, (uint64_t)esp_fuzz_byte(input) * 500);
  esp_engine_tick(world->fixture.engine);
  expect_same_place(world);
}

static void open_push(struct world *world, struct esp_fuzz_input *input) {
  open_slot(world, input, false);
}

static void open_stage(struct world *world, struct esp_fuzz_input *input) {
  open_slot(world, input, true);
}

/* Feeding comes often, or no push would ever be whole. */
static void (*const steps[])(struct world *world, struct esp_fuzz_input *input) = {
    feed_slot, feed_slot, feed_slot, end_slot,     end_slot, open_push, open_push,    open_stage,
    drop_slot, change,    change,    declare_some, join,     leave,     wait_a_while,
};

/* ---- the world ---- */

static void open_world(struct world *world) {
  fixture_open_with(&world->fixture, 1, ESP_ISA_SSE2, "sgd(lr=1, momentum=0.5)", STAGED_MAX, ESP_NONFINITE_REJECT);
  struct esp_declare_leaf leaves[5];
  for (size_t i = 0; i < 5; i++)
    leaves[i] = vector_f64(paths[i], 1 + i);
  leaves[1].dtype = ESP_DTYPE_F32;
  leaves[3].kind = ESP_KIND_BUFFER;
  struct outcome outcome;
  ESP_CHECK(declare(&world->fixture, leaves, 5, &outcome) == ESP_OK);
  look(world);
}

/* What is open is dropped, and stages expire. */
static void close_world(struct world *world) {
  for (size_t i = 0; i < SLOTS_LEN; i++)
    slot_free(&world->slots[i]);
  esp_env_virtual_advance(world->fixture.twin, 1000000);
  esp_engine_tick(world->fixture.engine);
  expect_unchanged(world);
  ESP_CHECK(staged(&world->fixture) == 0);
  fixture_close(&world->fixture);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t live = esp_alloc_live();
  struct esp_fuzz_input input = {.at = data, .left = size};
  struct world world = {0};
  open_world(&world);
  while (input.left > 0)
    steps[esp_fuzz_below(&input, LEN(steps))](&world, &input);
  close_world(&world);
  ESP_CHECK(esp_alloc_live() == live);
  return 0;
}
