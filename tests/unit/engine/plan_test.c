/* A plan: it comes before any push, whatever has to be declared first, and never in part. */
#include "fixture.h"

/* What the plan's owner was told. */
struct told {
  pthread_mutex_t lock;
  unsigned applied;
  unsigned failed;
  uint64_t epoch;
};

static void on_told(void *data, enum esp_code code, const struct esp_status *st, const struct esp_apply_reply *reply) {
  struct told *told = data;
  (void)st;
  pthread_mutex_lock(&told->lock);
  told->applied += code == ESP_OK;
  told->failed += code != ESP_OK;
  told->epoch = code == ESP_OK ? reply->epoch : told->epoch;
  pthread_mutex_unlock(&told->lock);
}

struct scene {
  struct fixture fixture;
  struct told told;
  struct esp_apply_request request;
};

static enum esp_code plan(struct scene *scene, const struct esp_operation *operations, size_t len,
                          struct esp_status *st) {
  scene->told = (struct told){0};
  pthread_mutex_init(&scene->told.lock, NULL);
  scene->request = (struct esp_apply_request){
      .operations = operations, .operations_len = len, .idempotency_key = "", .actor = "plan", .reason = "a test"};
  return esp_engine_plan(scene->fixture.engine, &scene->request, on_told, &scene->told, st);
}

/* Begins a push of nothing: what becomes of it. */
static enum esp_code try_push(struct scene *scene, struct esp_status *st) {
  struct esp_push_header header = {0};
  struct outcome outcome;
  struct esp_push *push = NULL;
  outcome_init(&outcome);
  enum esp_code code = esp_push_new(scene->fixture.engine, &header, on_push, &outcome, &push, st);
  if (code == ESP_OK)
    esp_push_free(push);
  return code;
}

static bool is_frozen(struct scene *scene, const char *path) {
  struct esp_layout *layout = esp_engine_layout(scene->fixture.engine, NULL);
  const struct esp_leaf *leaf = esp_layout_leaf_by_path(layout, path, strlen(path));
  bool frozen = leaf != NULL && esp_layout_place(layout, leaf)->frozen;
  esp_layout_unref(layout);
  return frozen;
}

static void test_waits_for_its_leaves(void **state) {
  (void)state;
  struct scene scene;
  struct outcome outcome;
  struct esp_status st = {0};
  const struct esp_operation operations[] = {
      {.kind = ESP_OPERATION_DEFINE_GROUP, .name = "slow", .to = "sgd(lr=0.001)"},
      {.kind = ESP_OPERATION_FREEZE, .selection = "encoder", .place = "plan.txt:2"},
      {.kind = ESP_OPERATION_REGROUP, .selection = "head", .to = "slow"},
  };
  fixture_open(&scene.fixture);
  assert_int_equal(plan(&scene, operations, 3, &st), ESP_OK);
  assert_true(esp_engine_plan_waits(scene.fixture.engine, &st));
  assert_non_null(strstr(st.message, "plan.txt:2: no leaf matches \"encoder\""));
  assert_int_equal(try_push(&scene, &st), ESP_FAILED_PRECONDITION);
  assert_non_null(strstr(st.message, "plan.txt:2"));
  /* A part of what it names: nothing of it is done, and he who declared is told why. */
  struct esp_declare_leaf leaves[2] = {vector_f64("encoder.w", 2), vector_f64("head.w", 2)};
  assert_int_equal(declare(&scene.fixture, leaves, 1, &outcome), ESP_OK);
  assert_int_equal(outcome.epoch, 3); /* the assignment of the fixture, and this one */
  assert_int_equal(outcome.notes_len, 1);
  assert_non_null(strstr(outcome.note, "operation 3 of 3: no leaf matches \"head\""));
  assert_false(is_frozen(&scene, "encoder.w"));
  assert_int_equal(try_push(&scene, &st), ESP_FAILED_PRECONDITION);
  assert_int_equal(scene.told.failed, 1);
  assert_int_equal(declare(&scene.fixture, leaves, 1, &outcome), ESP_OK);
  assert_int_equal(scene.told.failed, 1); /* for the same reason */
  /* The rest: the declaration is answered with the plan applied. */
  assert_int_equal(declare(&scene.fixture, leaves, 2, &outcome), ESP_OK);
  assert_int_equal(outcome.epoch, 5);
  assert_non_null(strstr(outcome.note, "plan was applied: epoch 5"));
  assert_int_equal(scene.told.applied, 1);
  assert_int_equal(scene.told.epoch, 5);
  assert_true(is_frozen(&scene, "encoder.w"));
  assert_false(is_frozen(&scene, "head.w"));
  assert_false(esp_engine_plan_waits(scene.fixture.engine, &st));
  assert_int_equal(try_push(&scene, &st), ESP_OK);
  /* Once. */
  leaves[0] = vector_f64("encoder.later", 2);
  assert_int_equal(declare(&scene.fixture, leaves, 1, &outcome), ESP_OK);
  assert_int_equal(outcome.notes_len, 0);
  assert_false(is_frozen(&scene, "encoder.later"));
  fixture_close(&scene.fixture);
}

static void test_at_once_where_it_needs_nothing(void **state) {
  (void)state;
  struct scene scene;
  struct esp_status st = {0};
  struct esp_declare_leaf leaf = vector_f64("w", 2);
  leaf.tag = leaf.group = leaf.alias_of = "";
  const struct esp_operation operations[] = {
      {.kind = ESP_OPERATION_ADD, .leaf = &leaf},
      {.kind = ESP_OPERATION_FREEZE, .selection = "w"},
  };
  fixture_open(&scene.fixture);
  assert_int_equal(plan(&scene, operations, 2, &st), ESP_OK);
  assert_false(esp_engine_plan_waits(scene.fixture.engine, &st));
  assert_int_equal(scene.told.applied, 1);
  assert_true(is_frozen(&scene, "w"));
  assert_int_equal(try_push(&scene, &st), ESP_OK);
  fixture_close(&scene.fixture);
}

/* What an operator does may be what the plan waits for. */
static void test_after_a_transaction(void **state) {
  (void)state;
  struct scene scene;
  struct outcome outcome;
  struct esp_status st = {0};
  const struct esp_operation freeze = {.kind = ESP_OPERATION_FREEZE, .selection = "encoder"};
  const struct esp_operation rename = {.kind = ESP_OPERATION_RENAME, .selection = "enc", .to = "encoder"};
  fixture_open(&scene.fixture);
  assert_int_equal(plan(&scene, &freeze, 1, &st), ESP_OK);
  struct esp_declare_leaf leaf = vector_f64("enc.w", 2);
  assert_int_equal(declare(&scene.fixture, &leaf, 1, &outcome), ESP_OK);
  assert_true(esp_engine_plan_waits(scene.fixture.engine, &st));
  assert_int_equal(apply_ops(&scene.fixture, &rename, 1, &outcome), ESP_OK);
  while (esp_engine_plan_waits(scene.fixture.engine, &st) || !esp_engine_is_idle(scene.fixture.engine))
    sched_yield();
  assert_true(is_frozen(&scene, "encoder.w"));
  fixture_close(&scene.fixture);
}

static void test_refused_at_the_start(void **state) {
  (void)state;
  const struct {
    struct esp_operation operation;
    const char *why;
  } cases[] = {
      {{.kind = ESP_OPERATION_FREEZE, .selection = "a & &"}, "column 5"},
      {{.kind = ESP_OPERATION_FREEZE, .selection = ""}, "names no leaves"},
      {{.kind = ESP_OPERATION_TIE, .selection = "a", .to = "(b"}, "column"},
      {{.kind = ESP_OPERATION_RENAME, .selection = "a", .to = "b..c"}, "component 2 is empty"},
      {{.kind = ESP_OPERATION_REGROUP, .selection = "a", .to = "b c"}, "group"},
      {{.kind = ESP_OPERATION_DEFINE_GROUP, .name = "g", .to = "nothing(lr=1)"}, "unknown rule"},
      {{.kind = ESP_OPERATION_DELETE_GROUP, .name = "nobody"}, "nobody"},
      {{.kind = ESP_OPERATION_ADJUST,
        .name = "nobody",
        .hypers = &(struct esp_hyper_change){"lr", "1"},
        .hypers_len = 1},
       "nobody"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct scene scene;
    struct esp_status st = {0};
    /* Behind one that has to wait: it is found all the same. */
    const struct esp_operation operations[] = {{.kind = ESP_OPERATION_FREEZE, .selection = "later"},
                                               cases[i].operation};
    fixture_open(&scene.fixture);
    assert_int_not_equal(plan(&scene, operations, 2, &st), ESP_OK);
    if (strstr(st.message, cases[i].why) == NULL)
      fail_msg("case %zu: %s", i, st.message);
    assert_false(esp_engine_plan_waits(scene.fixture.engine, &st));
    fixture_close(&scene.fixture);
  }
}

/* Many who declare at once, and push as soon as they are answered. */
struct worker {
  pthread_t thread;
  struct scene *scene;
  char path[32];
  enum esp_code declared;
  enum esp_code pushed;
};

static void *declare_and_push(void *data) {
  struct worker *worker = data;
  struct outcome outcome;
  struct esp_status st;
  struct esp_declare_leaf leaf = vector_f64(worker->path, 2);
  worker->declared = declare(&worker->scene->fixture, &leaf, 1, &outcome);
  bool done = strstr(outcome.note, "plan was applied") != NULL || outcome.notes_len == 0;
  worker->pushed = done ? try_push(worker->scene, &st) : ESP_OK;
  return NULL;
}

static void test_many_at_once(void **state) {
  (void)state;
  enum { WORKERS = 8 };
  struct scene scene;
  struct esp_status st;
  struct worker workers[WORKERS];
  const struct esp_operation operations[] = {{.kind = ESP_OPERATION_FREEZE, .selection = "w.3"},
                                             {.kind = ESP_OPERATION_FREEZE, .selection = "w.5"}};
  fixture_open(&scene.fixture);
  assert_int_equal(plan(&scene, operations, 2, &st), ESP_OK);
  for (int i = 0; i < WORKERS; i++) {
    workers[i] = (struct worker){.scene = &scene};
    snprintf(workers[i].path, sizeof(workers[i].path), "w.%d", i);
    assert_int_equal(pthread_create(&workers[i].thread, NULL, declare_and_push, &workers[i]), 0);
  }
  for (int i = 0; i < WORKERS; i++) {
    pthread_join(workers[i].thread, NULL);
    assert_int_equal(workers[i].declared, ESP_OK);
    assert_int_equal(workers[i].pushed, ESP_OK);
  }
  assert_int_equal(scene.told.applied, 1);
  assert_false(esp_engine_plan_waits(scene.fixture.engine, &st));
  assert_true(is_frozen(&scene, "w.3") && is_frozen(&scene, "w.5") && !is_frozen(&scene, "w.4"));
  fixture_close(&scene.fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_waits_for_its_leaves), ESP_TEST(test_at_once_where_it_needs_nothing),
                                     ESP_TEST(test_after_a_transaction), ESP_TEST(test_refused_at_the_start),
                                     ESP_TEST(test_many_at_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
