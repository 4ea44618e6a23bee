#include "client/src/retry.h"
#include "tests/support/test.h"

static void test_backoff_doubles(void **state) {
  (void)state;
  static const uint64_t whole[] = {20, 40, 80, 160, 320, 640, 1000, 1000};
  for (unsigned retry = 0; retry < 8; retry++) {
    assert_int_equal(esp_backoff_ms(20, 1000, retry, 0), whole[retry] - whole[retry] / 2);
    assert_int_equal(esp_backoff_ms(20, 1000, retry, whole[retry] / 2), whole[retry]);
  }
}

static void test_backoff_bounds(void **state) {
  (void)state;
  uint64_t seed = 7;
  for (uint64_t base = 1; base < 40; base++)
    for (uint64_t max = base; max < 90; max += 7)
      for (unsigned retry = 0; retry < 70; retry++) {
        uint64_t wait_ms = esp_backoff_ms(base, max, retry, esp_test_random(&seed));
        assert_true(wait_ms >= 1 && wait_ms <= max);
      }
  assert_int_equal(esp_backoff_ms(1, UINT64_MAX, 1000, 0), UINT64_MAX - UINT64_MAX / 2);
  assert_int_equal(esp_backoff_ms(5000, 1000, 0, 0), 500);
}

static void test_only_unavailable_is_retried(void **state) {
  (void)state;
  for (int code = 0; code <= 16; code++) {
    struct esp_retry retry = {.backoff_ms = 10, .backoff_ms_max = 10, .deadline_ms = 1000};
    uint64_t wait_ms;
    assert_int_equal(esp_retry_next(&retry, (enum esp_code)code, 0, 0, &wait_ms), code == ESP_UNAVAILABLE);
    assert_int_equal(retry.attempts, 1);
  }
}

static void test_attempts_run_out(void **state) {
  (void)state;
  for (unsigned max = 1; max < 5; max++) {
    struct esp_retry retry = {.backoff_ms = 1, .backoff_ms_max = 1, .deadline_ms = 1000, .attempts_max = max};
    uint64_t wait_ms;
    for (unsigned i = 1; i < max; i++)
      assert_true(esp_retry_next(&retry, ESP_UNAVAILABLE, 0, 0, &wait_ms));
    assert_false(esp_retry_next(&retry, ESP_UNAVAILABLE, 0, 0, &wait_ms));
  }
}

static void test_waits_grow_from_the_base(void **state) {
  (void)state;
  struct esp_retry retry = {.backoff_ms = 10, .backoff_ms_max = 40, .deadline_ms = 1000};
  for (uint64_t whole = 10; whole <= 40; whole *= 2) {
    uint64_t wait_ms = 0;
    assert_true(esp_retry_next(&retry, ESP_UNAVAILABLE, 0, whole / 2, &wait_ms));
    assert_int_equal(wait_ms, whole);
  }
}

static void test_never_past_the_deadline(void **state) {
  (void)state;
  for (uint64_t now_ms = 0; now_ms < 130; now_ms++) {
    struct esp_retry retry = {.backoff_ms = 20, .backoff_ms_max = 20, .deadline_ms = 100};
    uint64_t wait_ms = 0;
    bool again = esp_retry_next(&retry, ESP_UNAVAILABLE, now_ms, 10, &wait_ms);
    assert_int_equal(again, now_ms < 80);
    assert_int_equal(wait_ms, again ? 20 : 0);
  }
}

static void test_wait_waits(void **state) {
  (void)state;
  uint64_t begin_ms = esp_now_ms();
  struct esp_retry retry = {.backoff_ms = 20, .backoff_ms_max = 20, .deadline_ms = begin_ms + 60000};
  assert_true(esp_retry_wait(&retry, ESP_UNAVAILABLE));
  assert_true(esp_now_ms() - begin_ms >= 9);
  assert_false(esp_retry_wait(&retry, ESP_NOT_FOUND));
  assert_int_equal(esp_left_ms(begin_ms), 0);
  assert_true(esp_left_ms(begin_ms + 60000) > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_backoff_doubles),
                                     ESP_TEST(test_backoff_bounds),
                                     ESP_TEST(test_only_unavailable_is_retried),
                                     ESP_TEST(test_attempts_run_out),
                                     ESP_TEST(test_waits_grow_from_the_base),
                                     ESP_TEST(test_never_past_the_deadline),
                                     ESP_TEST(test_wait_waits)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
