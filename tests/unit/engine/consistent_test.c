/* Consistent pulls see one commit everywhere; delta pulls leave out what the reader has. */
#include "engine/value.h"
#include "fixture.h"

#define LEAVES 20

/* A tree of small leaves and one of several shares, and a gradient for all of it. */
struct forest {
  uint64_t ids[LEAVES];
  struct grad grads[LEAVES];
  double *ones;
};

static void forest_open(struct fixture *fixture, struct forest *forest) {
  char path[16];
  fixture_open(fixture);
  forest->ones = malloc(200000 * sizeof(double));
  for (size_t i = 0; i < 200000; i++)
    forest->ones[i] = 1;
  for (size_t i = 0; i < LEAVES; i++) {
    size_t len = i == 7 ? 200000 : i + 1;
    snprintf(path, sizeof(path), "n.l%02zu", i);
    forest->ids[i] = declare_vector(fixture, path, len);
    forest->grads[i] = (struct grad){forest->ids[i], forest->ones, len * 8};
  }
}

static void forest_close(struct fixture *fixture, struct forest *forest) {
  free(forest->ones);
  fixture_close(fixture);
}

static void push_all(struct fixture *fixture, struct forest *forest) {
  struct outcome outcome;
  assert_int_equal(push_many(fixture, 0, 0, forest->grads, LEAVES, &outcome), ESP_OK);
}

/* Every element of what is pinned is this. */
static void assert_all(const struct esp_pin *pin, double value) {
  for (size_t i = 0; i < pin->bytes_len / 8; i++)
    assert_true(((const double *)pin->bytes)[i] == value);
}

static void test_one_commit_everywhere(void **state) {
  (void)state;
  struct fixture fixture;
  struct forest forest;
  struct outcome outcome;
  struct esp_pull *pull;
  forest_open(&fixture, &forest);
  push_all(&fixture, &forest);
  struct esp_pull_request request = {.selection = "n", .consistent = true};
  assert_int_equal(pull_begin(&fixture, &request, &outcome, &pull), ESP_OK);
  assert_int_equal(outcome.header.leaf_count, LEAVES);
  uint64_t commit = outcome.header.commit;
  size_t leaves = 0;
  while (pull_next(pull, &outcome)) {
    assert_non_null(outcome.pin.hold);
    assert_all(&outcome.pin, -1);
    esp_hold_unref(outcome.pin.hold);
    push_all(&fixture, &forest); /* it has begun: nothing that comes later is seen */
    leaves++;
  }
  assert_int_equal(leaves, LEAVES);
  esp_pull_free(pull);
  assert_int_equal(copies(&fixture), 0);
  assert_int_equal(pull_begin(&fixture, &request, &outcome, &pull), ESP_OK);
  assert_int_equal(outcome.header.commit, commit + LEAVES);
  esp_pull_free(pull); /* with nothing taken: all of it goes back */
  assert_int_equal(copies(&fixture), 0);
  forest_close(&fixture, &forest);
}

/* Readers at one commit each while two threads push: every pull sees one integer everywhere. */
struct pusher {
  struct fixture *fixture;
  struct forest *forest;
  _Atomic bool stop;
};

static void *push_on(void *data) {
  struct pusher *pusher = data;
  while (!pusher->stop)
    push_all(pusher->fixture, pusher->forest);
  return NULL;
}

static void test_one_integer_under_load(void **state) {
  (void)state;
  struct fixture fixture;
  struct forest forest;
  pthread_t threads[2];
  forest_open(&fixture, &forest);
  struct pusher pusher = {.fixture = &fixture, .forest = &forest};
  for (size_t i = 0; i < 2; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, push_on, &pusher), 0);
  for (int round = 0; round < 200; round++) {
    struct outcome outcome;
    struct esp_pull *pull;
    struct esp_pull_request request = {.selection = "", .consistent = true};
    assert_int_equal(pull_begin(&fixture, &request, &outcome, &pull), ESP_OK);
    double value = -(double)(outcome.header.commit - LEAVES); /* the declarations were commits, too */
    while (pull_next(pull, &outcome)) {
      assert_all(&outcome.pin, value);
      esp_hold_unref(outcome.pin.hold);
    }
    esp_pull_free(pull);
  }
  pusher.stop = true;
  for (size_t i = 0; i < 2; i++)
    pthread_join(threads[i], NULL);
  assert_int_equal(copies(&fixture), 0);
  forest_close(&fixture, &forest);
}

static void test_it_reserves_all_of_it(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome first, second;
  struct esp_pull *pull, *waits;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 3 << 20); /* 24 MiB each; the bound is 64 MiB */
  declare_vector(&fixture, "b", 3 << 20);
  struct esp_pull_request request = {.selection = "", .consistent = true, .wait_ms = 1000};
  assert_int_equal(pull_begin(&fixture, &request, &first, &pull), ESP_OK);
  assert_int_equal(copies(&fixture), 2 * esp_hold_cost(24 << 20));
  outcome_init(&second);
  assert_int_equal(esp_pull_new(fixture.engine, &request, on_pull, &second, &waits, &second.st), ESP_OK);
  assert_int_equal(esp_pull_next(waits), ESP_PULL_WAITS);
  /* What is pushed meanwhile is seen by the one that waits, and not by the other. */
  struct outcome outcome;
  double *ones = calloc(3 << 20, sizeof(double));
  ones[0] = 1;
  assert_int_equal(push_one(&fixture, a, ones, 24 << 20, &outcome), ESP_OK);
  assert_true(pull_next(pull, &first));
  assert_true(*(const double *)first.pin.bytes == 0);
  esp_hold_unref(first.pin.hold);
  esp_pull_free(pull);
  outcome_wait(&second);
  assert_int_equal(second.code, ESP_OK);
  assert_true(pull_next(waits, &second));
  assert_true(*(const double *)second.pin.bytes == -1);
  esp_hold_unref(second.pin.hold);
  esp_pull_free(waits);
  declare_vector(&fixture, "c", 3 << 20);
  assert_int_equal(pull_begin(&fixture, &request, &first, &pull), ESP_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(first.st.message, "--max-copy-on-write is 67108864"));
  free(ones);
  fixture_close(&fixture);
}

/* The layout is the one of the moment in which it begins, not of the one in which it was asked for. */
static void test_the_layout_when_it_begins(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome first, second, outcome;
  struct esp_pull *pull, *waits;
  const char *const selections[] = {"", "a"};
  for (size_t i = 0; i < 2; i++) {
    fixture_open(&fixture);
    declare_vector(&fixture, "a", 5 << 20);
    struct esp_pull_request request = {.selection = selections[i], .consistent = true};
    assert_int_equal(pull_begin(&fixture, &request, &first, &pull), ESP_OK);
    outcome_init(&second);
    assert_int_equal(esp_pull_new(fixture.engine, &request, on_pull, &second, &waits, &second.st), ESP_OK);
    assert_int_equal(esp_pull_next(waits), ESP_PULL_WAITS);
    declare_vector(&fixture, "b", 1);
    assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "b", &outcome), ESP_OK);
    esp_pull_free(pull);
    outcome_wait(&second);
    if (i == 0) {
      assert_int_equal(second.code, ESP_UNAVAILABLE); /* it grew beyond what was asked for */
    } else {
      assert_int_equal(second.code, ESP_OK);
      assert_int_equal(second.header.epoch, outcome.epoch);
      assert_int_equal(second.header.leaf_count, 1);
    }
    esp_pull_free(waits);
    assert_int_equal(copies(&fixture), 0);
    fixture_close(&fixture);
  }
}

/* Pulls everything that differs from `have`; returns how many leaves came. */
static size_t pull_delta(struct fixture *fixture, bool consistent, uint64_t lineage, const struct esp_have *have,
                         size_t have_len, struct esp_have *ret_have) {
  struct outcome outcome;
  struct esp_pull *pull;
  struct esp_pull_request request = {
      .selection = "", .consistent = consistent, .have_lineage = lineage, .have = have, .have_len = have_len};
  assert_int_equal(pull_begin(fixture, &request, &outcome, &pull), ESP_OK);
  assert_int_equal(outcome.header.leaf_count, LEAVES);
  size_t came = 0, next = 0;
  for (; pull_next(pull, &outcome); next++) {
    assert_int_equal(outcome.code, ESP_OK);
    if (outcome.pin.hold == NULL)
      continue;
    if (ret_have != NULL)
      ret_have[next] = (struct esp_have){.leaf_id = outcome.pin.leaf_id,
                                         .param_id = outcome.pin.param_id,
                                         .version = outcome.pin.version,
                                         .view = outcome.pin.view};
    came++;
    esp_hold_unref(outcome.pin.hold);
  }
  assert_int_equal(next, LEAVES);
  esp_pull_free(pull);
  return came;
}

static void test_only_what_differs(void **state) {
  (void)state;
  for (int consistent = 0; consistent < 2; consistent++) {
    struct fixture fixture;
    struct forest forest;
    struct outcome outcome;
    struct esp_have have[LEAVES + 1], changed[LEAVES];
    forest_open(&fixture, &forest);
    uint64_t lineage = esp_engine_lineage(fixture.engine);
    assert_int_equal(pull_delta(&fixture, consistent, lineage, NULL, 0, have), LEAVES);
    have[LEAVES] = (struct esp_have){.leaf_id = 4711, .param_id = 1, .version = 1}; /* long gone: no matter */
    assert_int_equal(pull_delta(&fixture, consistent, lineage, have, LEAVES + 1, NULL), 0);
    assert_int_equal(pull_delta(&fixture, consistent, lineage, have, LEAVES - 1, NULL), 1);
    assert_int_equal(pull_delta(&fixture, consistent, lineage + 1, have, LEAVES, NULL), LEAVES);
    assert_int_equal(push_many(&fixture, 0, 0, &forest.grads[6], 2, &outcome), ESP_OK);
    memcpy(changed, have, sizeof(changed));
    assert_int_equal(pull_delta(&fixture, consistent, lineage, have, LEAVES, changed), 2);
    assert_int_equal(changed[7].version, have[7].version + 1);
    assert_int_equal(pull_delta(&fixture, consistent, lineage, changed, LEAVES, NULL), 0);
    /* Another parameter or another view of it is another tensor. */
    memcpy(have, changed, sizeof(changed));
    have[0].param_id++;
    have[1].view = ESP_VIEW_TRANSPOSE;
    assert_int_equal(pull_delta(&fixture, consistent, lineage, have, LEAVES, NULL), 2);
    /* What is frozen does not differ, whatever is pushed. */
    assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "n", &outcome), ESP_OK);
    push_all(&fixture, &forest);
    assert_int_equal(pull_delta(&fixture, consistent, lineage, changed, LEAVES, NULL), 0);
    assert_int_equal(copies(&fixture), 0);
    forest_close(&fixture, &forest);
  }
}

/* An operator's transactions: epoch by commit. */
#define FREEZES 2000
struct surgeon {
  struct fixture *fixture;
  struct esp_apply_reply replies[FREEZES];
  _Atomic bool has_ended;
};

static void *freeze_on(void *data) {
  struct surgeon *surgeon = data;
  for (size_t i = 0; i < FREEZES; i++) {
    struct outcome outcome;
    assert_int_equal(apply_one(surgeon->fixture, i % 2 == 0 ? ESP_OPERATION_FREEZE : ESP_OPERATION_THAW, "n", &outcome),
                     ESP_OK);
    surgeon->replies[i] = (struct esp_apply_reply){.epoch = outcome.epoch, .commit = outcome.commit};
  }
  surgeon->has_ended = true;
  return NULL;
}

/* The header's epoch is the one of its commit, though the layout is another at any moment. */
static void test_the_layout_of_its_commit(void **state) {
  (void)state;
  struct fixture fixture;
  static struct esp_pull_header headers[20000];
  size_t len = 0;
  pthread_t thread;
  fixture_open(&fixture);
  for (size_t i = 0; i < LEAVES; i++) {
    char path[16];
    snprintf(path, sizeof(path), "n.l%02zu", i);
    declare_vector(&fixture, path, 1);
  }
  struct surgeon *surgeon = calloc(1, sizeof(*surgeon));
  surgeon->fixture = &fixture;
  assert_int_equal(pthread_create(&thread, NULL, freeze_on, surgeon), 0);
  for (; len < 20000 && !surgeon->has_ended; len++) {
    struct outcome outcome;
    struct esp_pull *pull;
    struct esp_pull_request request = {.selection = "", .consistent = true};
    assert_int_equal(pull_begin(&fixture, &request, &outcome, &pull), ESP_OK);
    headers[len] = outcome.header;
    esp_pull_free(pull);
  }
  pthread_join(thread, NULL);
  for (size_t i = 0, at = 0; i < len; i++) {
    while (at < FREEZES && surgeon->replies[at].commit <= headers[i].commit)
      at++;
    assert_int_equal(headers[i].epoch, at == 0 ? surgeon->replies[0].epoch - 1 : surgeon->replies[at - 1].epoch);
  }
  free(surgeon);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_one_commit_everywhere),    ESP_TEST(test_one_integer_under_load),
      ESP_TEST(test_it_reserves_all_of_it),    ESP_TEST(test_the_layout_when_it_begins),
      ESP_TEST(test_the_layout_of_its_commit), ESP_TEST(test_only_what_differs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
