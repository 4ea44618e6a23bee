/* Sessions and sequences: a retry is answered and not applied again, in every state of the original. */
#include <math.h>

#include "fixture.h"

static uint64_t join(struct fixture *fixture) {
  struct esp_join join;
  struct esp_status st;
  if (esp_session_join(fixture->engine, "w", 0, &join, &st) != ESP_OK)
    fail_msg("%s", st.message);
  return join.session;
}

static void test_join_leave_expire(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_join join1, join2;
  struct esp_status st;
  struct esp_engine_info info;
  fixture_open(&fixture);
  assert_int_equal(esp_session_join(fixture.engine, "w1", 0, &join1, &st), ESP_OK);
  assert_int_equal(join1.last_sequence, 0);
  assert_int_equal(join1.lineage, esp_engine_lineage(fixture.engine));
  assert_int_equal(esp_session_join(fixture.engine, "w1", join1.session, &join2, &st), ESP_OK);
  assert_int_equal(join2.session, join1.session);
  esp_env_virtual_advance(fixture.twin, 30001);
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.sessions_live, 0); /* the lease is over, the session is not */
  assert_int_equal(esp_session_heartbeat(fixture.engine, join1.session, &join2, &st), ESP_OK);
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.sessions_live, 1);
  esp_env_virtual_advance(fixture.twin, 100001);
  esp_engine_tick(fixture.engine);
  assert_int_equal(esp_session_heartbeat(fixture.engine, join1.session, &join2, &st), ESP_FAILED_PRECONDITION);
  assert_non_null(strstr(st.message, "--session-retention"));
  uint64_t session = join(&fixture);
  assert_int_equal(esp_session_leave(fixture.engine, session, &st), ESP_OK);
  assert_int_equal(esp_session_leave(fixture.engine, session, &st), ESP_OK);
  assert_int_equal(esp_session_join(fixture.engine, "w", session, &join2, &st), ESP_FAILED_PRECONDITION);
  for (int i = 0; i < 8; i++)
    join(&fixture);
  assert_int_equal(esp_session_join(fixture.engine, "w", 0, &join2, &st), ESP_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(st.message, "--max-sessions"));
  fixture_close(&fixture);
}

/* The tick has read the clock, and before it looks at the session that is heard of: it is not old, but the opposite. */
static void test_heard_of_during_the_tick(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_join joined;
  struct esp_status st;
  fixture_open(&fixture);
  uint64_t session = join(&fixture);
  uint64_t tick_ms = esp_engine_now(fixture.engine);
  esp_env_virtual_advance(fixture.twin, 1);
  assert_int_equal(esp_session_heartbeat(fixture.engine, session, &joined, &st), ESP_OK);
  esp_sessions_tick(fixture.engine, tick_ms);
  assert_int_equal(esp_session_heartbeat(fixture.engine, session, &joined, &st), ESP_OK);
  fixture_close(&fixture);
}

static void test_retry_of_a_committed_push(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome first, retry;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1), session = join(&fixture);
  const double one = 1;
  const struct grad grad = {a, &one, 8};
  assert_int_equal(push_many(&fixture, session, 1, &grad, 1, &first), ESP_OK);
  assert_int_equal(push_many(&fixture, session, 2, &grad, 1, &retry), ESP_OK);
  assert_int_equal(push_many(&fixture, session, 1, &grad, 1, &retry), ESP_OK);
  assert_true(retry.push.replayed && !first.push.replayed);
  retry.push.replayed = false;
  assert_memory_equal(&retry.push, &first.push, sizeof(first.push));
  assert_true(first_of(&fixture, a) == -2);
  struct esp_join join;
  assert_int_equal(esp_session_join(fixture.engine, "w", session, &join, NULL), ESP_OK);
  assert_int_equal(join.last_sequence, 2);
  fixture_close(&fixture);
}

/* The original is half there when the retry begins: it is ended, and only the retry is applied. */
static void test_retry_supersedes_an_uncommitted_push(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome o1, o2;
  struct esp_push *original;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1), session = join(&fixture);
  const double one = 1;
  const struct grad grad = {a, &one, 8};
  assert_int_equal(push_arrive(&fixture, session, 1, &grad, 1, &o1, &original), ESP_OK);
  assert_int_equal(push_many(&fixture, session, 1, &grad, 1, &o2), ESP_OK);
  assert_int_equal(o1.code, ESP_ABORTED);
  esp_push_commit(original); /* it was whole, and is too late */
  assert_int_equal(o1.done, 1);
  esp_push_free(original);
  assert_false(o2.push.replayed);
  assert_true(first_of(&fixture, a) == -1);
  fixture_close(&fixture);
}

/* A refused push frees its sequence: the retry is judged afresh. */
static void test_refused_sequence_can_be_used(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1), session = join(&fixture);
  const double one = 1, bad = 1e308 * 10;
  const struct grad good_grad = {a, &one, 8}, bad_grad = {a, &bad, 8};
  assert_int_equal(push_many(&fixture, session, 1, &bad_grad, 1, &outcome), ESP_INVALID_ARGUMENT);
  assert_int_equal(push_many(&fixture, session, 1, &good_grad, 1, &outcome), ESP_OK);
  assert_false(outcome.push.replayed);
  assert_true(first_of(&fixture, a) == -1);
  fixture_close(&fixture);
}

static void test_the_window(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome, open[ESP_IN_FLIGHT_MAX];
  struct esp_push *pushes[ESP_IN_FLIGHT_MAX], *more;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1), session = join(&fixture);
  const double one = 1;
  const struct grad grad = {a, &one, 8};
  for (unsigned i = 0; i < ESP_IN_FLIGHT_MAX; i++)
    assert_int_equal(push_arrive(&fixture, session, i + 1, &grad, 1, &open[i], &pushes[i]), ESP_OK);
  assert_int_equal(push_arrive(&fixture, session, ESP_IN_FLIGHT_MAX + 1, &grad, 1, &outcome, &more),
                   ESP_RESOURCE_EXHAUSTED);
  /* In any order: the last first. */
  for (unsigned i = ESP_IN_FLIGHT_MAX; i-- > 0;) {
    esp_push_commit(pushes[i]);
    outcome_wait(&open[i]);
    assert_int_equal(open[i].code, ESP_OK);
    esp_push_free(pushes[i]);
  }
  assert_true(first_of(&fixture, a) == -ESP_IN_FLIGHT_MAX);
  assert_int_equal(push_many(&fixture, session, 1, &grad, 1, &outcome), ESP_OK);
  assert_true(outcome.push.replayed);
  assert_int_equal(push_many(&fixture, session, ESP_IN_FLIGHT_MAX + 1, &grad, 1, &outcome), ESP_OK);
  assert_int_equal(push_many(&fixture, session, 1, &grad, 1, &outcome), ESP_FAILED_PRECONDITION);
  assert_non_null(strstr(outcome.st.message, "sequence 1 is older"));
  assert_true(first_of(&fixture, a) == -ESP_IN_FLIGHT_MAX - 1);
  fixture_close(&fixture);
}

/* A push that takes the place of an old one in the window, and is refused: the old one is still known. */
static void test_the_window_after_a_refusal(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1), session = join(&fixture);
  const double one = 1, bad = NAN;
  const struct grad grad = {a, &one, 8}, refused = {a, &bad, 8};
  for (unsigned i = 1; i <= 5; i++)
    assert_int_equal(push_many(&fixture, session, i, &grad, 1, &outcome), ESP_OK);
  struct esp_push *first, *second; /* sent again before it was refused */
  struct outcome ends[2];
  assert_int_equal(push_arrive(&fixture, session, ESP_IN_FLIGHT_MAX + 3, &refused, 1, &ends[0], &first), ESP_OK);
  assert_int_equal(push_arrive(&fixture, session, ESP_IN_FLIGHT_MAX + 3, &refused, 1, &ends[1], &second), ESP_OK);
  esp_push_free(first);
  esp_push_commit(second);
  outcome_wait(&ends[1]);
  assert_int_equal(ends[1].code, ESP_INVALID_ARGUMENT);
  esp_push_free(second);
  assert_int_equal(push_many(&fixture, session, 3, &grad, 1, &outcome), ESP_OK);
  assert_true(outcome.push.replayed);
  assert_true(first_of(&fixture, a) == -5);
  fixture_close(&fixture);
}

/* The retry comes while the original is being applied: both get the one answer. The pool is held up by a digest of a
 * large leaf, so the original stays in its queue until the retry has been sent. */
static void test_retry_while_it_is_applied(void **state) {
  (void)state;
  for (int round = 0; round < 20; round++) {
    struct fixture fixture;
    struct outcome o1, o2, digested;
    struct esp_push *p1, *p2;
    fixture_open(&fixture);
    size_t len = 300000;
    uint64_t a = declare_vector(&fixture, "a", len), session = join(&fixture);
    double *ones = calloc(len, sizeof(double));
    for (size_t i = 0; i < len; i++)
      ones[i] = 1;
    const struct grad grad = {a, ones, len * sizeof(double)};
    outcome_init(&digested);
    esp_engine_digest(fixture.engine, "a", on_digest, &digested);
    assert_int_equal(push_arrive(&fixture, session, 1, &grad, 1, &o1, &p1), ESP_OK);
    esp_push_commit(p1);
    assert_int_equal(push_arrive(&fixture, session, 1, &grad, 1, &o2, &p2), ESP_OK);
    esp_push_commit(p2);
    outcome_wait(&o1);
    outcome_wait(&o2);
    outcome_wait(&digested);
    assert_int_equal(o1.code, ESP_OK);
    assert_int_equal(o2.code, ESP_OK);
    assert_true(o2.push.replayed);
    assert_int_equal(o1.push.commit, o2.push.commit);
    esp_push_free(p1);
    esp_push_free(p2);
    assert_true(first_of(&fixture, a) == -1);
    free(ones);
    fixture_close(&fixture);
  }
}

static struct esp_worker worker_of(struct fixture *fixture, uint64_t session) {
  struct esp_worker worker;
  assert_int_equal(esp_sessions_describe(fixture->engine, &session, 1, &worker), 1);
  assert_int_equal(worker.session, session);
  return worker;
}

static void test_what_is_told_of_a_worker(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome, half;
  struct esp_push *push;
  struct esp_join join;
  struct esp_status st;
  char peer[2 * ESP_PEER_BYTES_MAX] = {0};
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1);
  const double one = 1;
  const struct grad grad = {a, &one, 8};
  assert_int_equal(esp_session_join(fixture.engine, "ann", 0, &join, &st), ESP_OK);
  struct esp_worker worker = worker_of(&fixture, join.session);
  assert_string_equal(worker.name, "ann");
  assert_string_equal(worker.peer, "");
  assert_true(worker.live);
  assert_true(worker.last_sequence == 0 && worker.in_flight == 0 && worker.pushes == 0 && worker.staleness == 0);
  /* Others' commits make it stale, its own do not. */
  for (int i = 0; i < 3; i++)
    assert_int_equal(push_one(&fixture, a, &one, 8, &outcome), ESP_OK);
  assert_int_equal(worker_of(&fixture, join.session).staleness, 3);
  assert_int_equal(push_many(&fixture, join.session, 7, &grad, 1, &outcome), ESP_OK);
  worker = worker_of(&fixture, join.session);
  assert_true(worker.last_sequence == 7 && worker.pushes == 1 && worker.in_flight == 0 && worker.staleness == 0);
  assert_int_equal(push_many(&fixture, join.session, 7, &grad, 1, &outcome), ESP_OK); /* a replay is no push */
  assert_int_equal(worker_of(&fixture, join.session).pushes, 1);
  /* One that has arrived and is not committed. */
  assert_int_equal(push_arrive(&fixture, join.session, 8, &grad, 1, &half, &push), ESP_OK);
  assert_int_equal(worker_of(&fixture, join.session).in_flight, 1);
  esp_push_free(push);
  assert_int_equal(worker_of(&fixture, join.session).in_flight, 0);
  /* The lease runs out. */
  esp_env_virtual_advance(fixture.twin, 30001);
  worker = worker_of(&fixture, join.session);
  assert_false(worker.live);
  assert_int_equal(worker.seen_ms, 30001);
  memset(peer, 'p', sizeof(peer) - 1);
  esp_session_note_peer(fixture.engine, join.session, peer);
  esp_session_note_peer(fixture.engine, join.session + 1, "nobody");
  assert_int_equal(strlen(worker_of(&fixture, join.session).peer), ESP_PEER_BYTES_MAX);
  fixture_close(&fixture);
}

static void test_the_list_of_sessions(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_status st;
  uint64_t *ids;
  size_t len;
  fixture_open(&fixture);
  assert_int_equal(esp_sessions_list(fixture.engine, &ids, &len, &st), ESP_OK);
  assert_int_equal(len, 0);
  esp_free(ids);
  uint64_t joined[3], sum = 0;
  for (size_t i = 0; i < 3; i++)
    joined[i] = join(&fixture);
  assert_int_equal(esp_sessions_list(fixture.engine, &ids, &len, &st), ESP_OK);
  assert_int_equal(len, 3);
  for (size_t i = 0; i < 3; i++)
    sum += ids[i] - joined[i];
  assert_int_equal(sum, 0);
  /* One leaves after it was listed. */
  struct esp_worker workers[3];
  assert_int_equal(esp_session_leave(fixture.engine, ids[1], &st), ESP_OK);
  assert_int_equal(esp_sessions_describe(fixture.engine, ids, 3, workers), 2);
  assert_true(workers[0].session == ids[0] && workers[1].session == ids[2]);
  esp_free(ids);
  esp_alloc_fail_at(0);
  assert_int_equal(esp_sessions_list(fixture.engine, &ids, &len, &st), ESP_RESOURCE_EXHAUSTED);
  esp_alloc_fail_at(-1);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_join_leave_expire),
      ESP_TEST(test_heard_of_during_the_tick),
      ESP_TEST(test_retry_of_a_committed_push),
      ESP_TEST(test_retry_supersedes_an_uncommitted_push),
      ESP_TEST(test_refused_sequence_can_be_used),
      ESP_TEST(test_the_window),
      ESP_TEST(test_the_window_after_a_refusal),
      ESP_TEST(test_retry_while_it_is_applied),
      ESP_TEST(test_what_is_told_of_a_worker),
      ESP_TEST(test_the_list_of_sessions),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
