/* inflow.c with sockets that take what the test says. */
#include "rpc/inflow.h"
#include "tests/support/test.h"

#define MAX 1000

static uint64_t received[4];

static uint64_t received_by(int connection) {
  return received[connection];
}

/* A look at one connection with these calls, each of so many messages. */
static bool look(struct esp_inflows *inflows, int connection, uint64_t calls, uint64_t messages) {
  esp_inflows_begin(inflows);
  for (uint64_t i = 0; i < calls; i++)
    esp_inflows_add(inflows, connection, i + 1, messages);
  esp_inflows_end(inflows, MAX, received_by);
  return esp_inflows_is_endless(inflows, connection);
}

static void calls_are_counted(void **state) {
  (void)state;
  struct esp_inflows inflows = {0};
  assert_int_equal(esp_inflows_enter(&inflows, 3), 1);
  assert_int_equal(esp_inflows_enter(&inflows, 3), 2);
  assert_int_equal(esp_inflows_enter(&inflows, 1), 1);
  esp_inflows_leave(&inflows, 3);
  assert_int_equal(esp_inflows_enter(&inflows, 3), 2);
  esp_inflows_done(&inflows);
}

static void a_message_that_does_not_end(void **state) {
  (void)state;
  struct esp_inflows inflows = {0};
  (void)esp_inflows_enter(&inflows, 2);
  received[2] = 5000; /* of calls that are over */
  assert_false(look(&inflows, 2, 1, 0));
  received[2] = 5900;
  assert_false(look(&inflows, 2, 1, 0));
  received[2] = 6000;
  assert_false(look(&inflows, 2, 1, 0));
  received[2] = 6001; /* pings */
  assert_false(look(&inflows, 2, 1, 0));
  received[2] = 6100;
  assert_true(look(&inflows, 2, 1, 0));
  /* A message came of it: counting starts anew. */
  assert_false(look(&inflows, 2, 1, 1));
  received[2] = 7100;
  assert_false(look(&inflows, 2, 1, 1));
  received[2] = 7200;
  assert_true(look(&inflows, 2, 1, 1));
  /* Another call is open now, and each may have a message on its way. */
  (void)esp_inflows_enter(&inflows, 2);
  assert_false(look(&inflows, 2, 2, 1));
  received[2] = 9200;
  assert_false(look(&inflows, 2, 2, 1));
  received[2] = 9300;
  assert_true(look(&inflows, 2, 2, 1));
  /* The socket of this number is another one. */
  received[2] = 10;
  assert_false(look(&inflows, 2, 2, 1));
  esp_inflows_done(&inflows);
}

static void pings_do_not_add_up(void **state) {
  (void)state;
  struct esp_inflows inflows = {0};
  (void)esp_inflows_enter(&inflows, 0);
  for (received[0] = 0; received[0] < 100 * MAX; received[0] += 34)
    assert_false(look(&inflows, 0, 1, 7));
  esp_inflows_done(&inflows);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(calls_are_counted),
      ESP_TEST(a_message_that_does_not_end),
      ESP_TEST(pings_do_not_add_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
