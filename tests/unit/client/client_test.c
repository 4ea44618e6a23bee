/* Clients against servers that are not there, or that are there and do not answer. The servers are bare sockets. */
#include <espalier/admin.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "client/src/client.h"
#include "tests/support/test.h"

/* ---- a server that accepts and never reads ---- */

struct stuck {
  int listener;     /* bound to a free port */
  int peers[16];    /* connections that were accepted, kept open */
  size_t peers_len; /* of peers */
  bool speaks;      /* sends HTTP/2 settings that let a client send two GiB at once */
  bool hangs_up;    /* closes each connection at once */
  pthread_t thread;
  char target[64];
};

static void *stuck_run(void *data) {
  struct stuck *stuck = data;
  /* SETTINGS with INITIAL_WINDOW_SIZE 2^31-1, and a WINDOW_UPDATE of the connection. */
  static const uint8_t windows[] = {0,    0, 6, 4, 0, 0, 0, 0, 0, 0, 4,    0x7f, 0xff, 0xff,
                                    0xff, 0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0,    0};
  for (;;) {
    int peer = accept(stuck->listener, NULL, NULL);
    if (peer < 0)
      return NULL;
    if (stuck->hangs_up || stuck->peers_len == 16) {
      close(peer);
      continue;
    }
    if (stuck->speaks)
      assert_int_equal(write(peer, windows, sizeof windows), sizeof windows);
    stuck->peers[stuck->peers_len++] = peer;
  }
}

static void stuck_bind(struct stuck *stuck) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  stuck->listener = socket(AF_INET, SOCK_STREAM, 0);
  assert_true(stuck->listener >= 0);
  assert_int_equal(bind(stuck->listener, (struct sockaddr *)&address, len), 0);
  assert_int_equal(getsockname(stuck->listener, (struct sockaddr *)&address, &len), 0);
  snprintf(stuck->target, sizeof stuck->target, "127.0.0.1:%d", ntohs(address.sin_port));
}

static void stuck_start(struct stuck *stuck) {
  stuck_bind(stuck);
  assert_int_equal(listen(stuck->listener, 16), 0);
  assert_int_equal(pthread_create(&stuck->thread, NULL, stuck_run, stuck), 0);
}

static void stuck_stop(struct stuck *stuck) {
  shutdown(stuck->listener, SHUT_RDWR);
  pthread_join(stuck->thread, NULL);
  close(stuck->listener);
  for (size_t i = 0; i < stuck->peers_len; i++)
    close(stuck->peers[i]);
}

static esp_client *open_client(const char *target, uint64_t deadline_ms, unsigned attempts_max) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = target;
  options.deadline_ms = deadline_ms;
  options.attempts_max = attempts_max;
  esp_client *client;
  assert_int_equal(esp_client_open(&options, &client, NULL), ESP_OK);
  return client;
}

/* As if it had joined before: a stuck server can't be joined. */
static void pretend_session(esp_client *client) {
  pthread_mutex_lock(&client->mutex);
  client->session = 1;
  client->lineage = 1;
  client->lease_ms = 3600000;
  client->sequence_next = 1;
  client->in_flight_max = 64;
  pthread_mutex_unlock(&client->mutex);
}

/* ---- options ---- */

static void test_options(void **state) {
  (void)state;
  static char long_name[257];
  memset(long_name, 'w', 256);
  const struct {
    struct esp_client_options options;
    const char *says;
  } cases[] = {
      {{NULL, NULL, 0, 20, 1000, 0, NULL, NULL, ESP_LINEAGE_FAIL, 0, 0}, "deadline_ms"},
      {{NULL, NULL, 30000, 0, 1000, 0, NULL, NULL, ESP_LINEAGE_FAIL, 0, 0}, "backoff_ms"},
      {{NULL, NULL, 30000, 20, 19, 0, NULL, NULL, ESP_LINEAGE_FAIL, 0, 0}, "backoff_ms_max"},
      {{NULL, long_name, 30000, 20, 1000, 0, NULL, NULL, ESP_LINEAGE_FAIL, 0, 0}, "256 bytes"},
      {{"nowhere:port", NULL, 30000, 20, 1000, 0, NULL, NULL, ESP_LINEAGE_FAIL, 0, 0}, "nowhere:port"},
      {{NULL, NULL, 30000, 20, 1000, 0, NULL, NULL, (enum esp_lineage_policy)2, 0, 0}, "on_new_lineage is 2"},
      {{NULL, NULL, 30000, 20, 1000, 0, NULL, NULL, ESP_LINEAGE_FAIL, 17, 0}, "channels is 17, of 16"},
      {{NULL, NULL, 30000, 20, 1000, 0, NULL, NULL, ESP_LINEAGE_FAIL, 0, 65}, "in_flight_max is 65, of 64"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    esp_client *client = NULL;
    struct esp_status st;
    assert_int_equal(esp_client_open(&cases[i].options, &client, &st), ESP_INVALID_ARGUMENT);
    assert_non_null(strstr(st.message, cases[i].says));
    assert_null(client);
  }
  long_name[255] = 0;
  struct esp_client_options good = {NULL, long_name, UINT64_MAX, 1, 1, 0, NULL, NULL, ESP_LINEAGE_FAIL, 0, 0};
  esp_client *client;
  assert_int_equal(esp_client_open(&good, &client, NULL), ESP_OK);
  esp_client_close(client);
  esp_client_close(NULL);
}

static void test_open_without_memory(void **state) {
  (void)state;
  esp_client *client = NULL;
  esp_alloc_fail_at(0);
  assert_int_equal(esp_client_open(NULL, &client, NULL), ESP_RESOURCE_EXHAUSTED);
  assert_null(client);
}

static void test_target_from_the_environment(void **state) {
  (void)state;
  esp_client *client;
  setenv("ESPALIER_SERVER", "example.org:12", 1);
  assert_int_equal(esp_client_open(NULL, &client, NULL), ESP_OK);
  assert_string_equal(client->address.text, "example.org:12");
  esp_client_close(client);
  unsetenv("ESPALIER_SERVER");
  assert_int_equal(esp_client_open(NULL, &client, NULL), ESP_OK);
  assert_string_equal(client->address.text, "127.0.0.1:7433");
  esp_client_close(client);
}

/* ---- arguments ---- */

static void test_arguments(void **state) {
  (void)state;
  esp_client *client = open_client("127.0.0.1:1", 1000, 1);
  struct esp_status st;
  float value = 1;
  esp_leaf_id id = 99;
  const struct {
    struct esp_leaf_spec spec;
    const char *says;
  } cases[] = {
      {{.dtype = ESP_F32}, "leaf 0 has no path"},
      {{.path = "", .dtype = ESP_F32}, "leaf 0 has no path"},
      {{.path = "a", .dtype = ESP_F32, .rank = 9}, "leaf a has rank 9"},
      {{.path = "a", .dtype = 0}, "leaf a: its dtype"},
      {{.path = "a", .dtype = (enum esp_leaf_dtype)5}, "leaf a: its dtype"},
      {{.path = "a", .dtype = ESP_F32, .kind = (enum esp_leaf_kind)3}, "leaf a: its kind"},
      {{.path = "a", .dtype = ESP_F32, .init = (enum esp_leaf_init)5}, "leaf a: its init"},
      {{.path = "a", .dtype = ESP_F32, .init = ESP_VALUE}, "its value NULL"},
      {{.path = "a", .dtype = ESP_F32, .rank = 2, .shape = {3, 0}}, "leaf a: "},
      {{.path = "a", .dtype = ESP_F32, .rank = 2, .shape = {1ull << 40, 1ull << 40}}, "leaf a: "},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    assert_int_equal(esp_declare(client, &cases[i].spec, 1, &id, &st), ESP_INVALID_ARGUMENT);
    if (strstr(st.message, cases[i].says) == NULL)
      fail_msg("case %zu: %s", i, st.message);
  }
  assert_int_equal(esp_declare(client, NULL, 0, &id, &st), ESP_INVALID_ARGUMENT);
  struct esp_gradient bad_grads[] = {{0, &value, 4, 0}, {1, NULL, 4, 0}, {1, &value, 0, 0}};
  for (size_t i = 0; i < 3; i++)
    assert_int_equal(esp_push(client, &bad_grads[i], 1, NULL, &st), ESP_INVALID_ARGUMENT);
  assert_int_equal(esp_pull(client, NULL, 0, NULL, &st), ESP_INVALID_ARGUMENT);
  struct esp_tensor tensor = {.dtype = ESP_F32, .data = &value, .bytes = 8};
  uint64_t stage;
  assert_int_equal(esp_stage(client, "a", &tensor, &stage, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, "8 bytes, and a shape of 4"));
  assert_int_equal(esp_get(client, "", &tensor, &st), ESP_INVALID_ARGUMENT);
  assert_int_equal(id, 99);
  assert_false(esp_leaf_is_frozen(client, 1));
  esp_client_close(client);
}

static void test_rows(void **state) {
  (void)state;
  float data[6] = {0};
  struct esp_tensor tensor = {.dtype = ESP_F32, .shape = {3, 2}, .rank = 2, .data = data, .bytes = sizeof data};
  size_t bytes = 0;
  assert_ptr_equal(esp_row(&tensor, 0, NULL), data);
  assert_ptr_equal(esp_row(&tensor, 2, &bytes), data + 4);
  assert_int_equal(bytes, 8);
  assert_null(esp_row(&tensor, 3, &bytes));
  struct esp_tensor scalar = {.dtype = ESP_F32, .data = data, .bytes = 4};
  assert_ptr_equal(esp_row(&scalar, 0, &bytes), data);
  assert_int_equal(bytes, 4);
  assert_null(esp_row(&scalar, 1, NULL));
}

/* A value that the library does not keep can't be declared again. */
static void test_redeclare_has_no_values(void **state) {
  (void)state;
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = "127.0.0.1:1";
  options.on_new_lineage = ESP_LINEAGE_REDECLARE;
  esp_client *client;
  assert_int_equal(esp_client_open(&options, &client, NULL), ESP_OK);
  float value = 1;
  struct esp_leaf_spec spec = {.path = "a", .dtype = ESP_F32, .init = ESP_VALUE, .value = &value};
  esp_leaf_id id;
  struct esp_status st;
  assert_int_equal(esp_declare(client, &spec, 1, &id, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, "leaf a: its init is ESP_VALUE"));
  esp_client_close(client);
}

/* ---- nobody there ---- */

static void test_refused_at_once(void **state) {
  (void)state;
  struct stuck stuck = {0};
  stuck_bind(&stuck); /* bound and not listening: refused, and nobody else gets the port */
  esp_client *client = open_client(stuck.target, 60000, 1);
  struct esp_status st;
  uint64_t begin_ms = esp_now_ms();
  assert_int_equal(esp_ping(client, &st), ESP_UNAVAILABLE);
  assert_true(esp_now_ms() - begin_ms < 30000);
  char want[256];
  snprintf(want, sizeof want,
           "no server at %s (connection refused); start one with espalierd or name it with --server or ESPALIER_SERVER",
           stuck.target);
  assert_string_equal(st.message, want);
  esp_client_close(client);
  close(stuck.listener);
}

static void test_refused_until_the_deadline(void **state) {
  (void)state;
  struct stuck stuck = {0};
  stuck_bind(&stuck);
  esp_client *client = open_client(stuck.target, 150, 0);
  uint64_t begin_ms = esp_now_ms();
  struct esp_status st;
  float value = 1;
  struct esp_gradient grad = {1, &value, 4, 0};
  assert_int_equal(esp_push(client, &grad, 1, NULL, &st), ESP_UNAVAILABLE);
  assert_non_null(strstr(st.message, "connection refused"));
  assert_true(esp_now_ms() - begin_ms >= 50);
  esp_client_close(client);
  close(stuck.listener);
}

static void test_names(void **state) {
  (void)state;
  esp_client *client = open_client("localhost:1", 60000, 1);
  struct esp_status st;
  assert_int_equal(esp_ping(client, &st), ESP_UNAVAILABLE);
  assert_non_null(strstr(st.message, "no server at localhost:1 ("));
  esp_client_close(client);
  client = open_client("unix:/nonexistent/espalier.sock", 60000, 1);
  assert_int_equal(esp_ping(client, &st), ESP_UNAVAILABLE);
  assert_non_null(strstr(st.message, "no such file or directory"));
  esp_client_close(client);
}

static void test_hangs_up(void **state) {
  (void)state;
  struct stuck stuck = {.hangs_up = true};
  stuck_start(&stuck);
  esp_client *client = open_client(stuck.target, 60000, 3);
  struct esp_status st;
  assert_int_equal(esp_ping(client, &st), ESP_UNAVAILABLE);
  assert_non_null(strstr(st.message, "was cut"));
  esp_client_close(client);
  stuck_stop(&stuck);
}

/* ---- there, and deaf ---- */

/* A push of more than any socket buffer holds ends soon after its deadline, and its memory is the caller's again. */
static void push_to_stuck(bool speaks) {
  struct stuck stuck = {.speaks = speaks};
  stuck_start(&stuck);
  esp_client *client = open_client(stuck.target, 300, 0);
  pretend_session(client);
  size_t bytes = (size_t)24 << 20;
  struct esp_gradient grads[2] = {{1, NULL, bytes, 0}, {2, NULL, 4, 0}};
  grads[0].data = calloc(1, bytes);
  grads[1].data = calloc(1, 4);
  for (int round = 0; round < 2; round++) {
    struct esp_status st;
    uint64_t begin_ms = esp_now_ms();
    assert_int_equal(esp_push(client, grads, 2, NULL, &st), ESP_DEADLINE_EXCEEDED);
    uint64_t took_ms = esp_now_ms() - begin_ms;
    assert_true(took_ms >= 300 && took_ms < 10000);
    assert_non_null(strstr(st.message, "did not answer"));
    assert_int_equal(client->streams_len, 0);
    /* The call has been freed, which it is only when no slice refers to this memory any more; ASan would see a late
     * use. */
    memset((void *)grads[0].data, 1, bytes);
  }
  free((void *)grads[0].data);
  free((void *)grads[1].data);
  esp_client_close(client);
  stuck_stop(&stuck);
}

static void test_push_to_a_server_that_never_speaks(void **state) {
  (void)state;
  push_to_stuck(false);
}

static void test_push_into_a_blocked_socket(void **state) {
  (void)state;
  push_to_stuck(true);
}

struct pusher {
  esp_client *client;
  enum esp_code code;
};

static void *push_run(void *data) {
  struct pusher *pusher = data;
  size_t bytes = (size_t)8 << 20;
  void *memory = calloc(1, bytes);
  struct esp_gradient grad = {1, memory, bytes, 0};
  pusher->code = esp_push(pusher->client, &grad, 1, NULL, NULL);
  free(memory);
  return NULL;
}

static void test_many_pushes_into_a_blocked_socket(void **state) {
  (void)state;
  struct stuck stuck = {.speaks = true};
  stuck_start(&stuck);
  esp_client *client = open_client(stuck.target, 300, 0);
  pretend_session(client);
  struct pusher pushers[4];
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) {
    pushers[i] = (struct pusher){.client = client};
    assert_int_equal(pthread_create(&threads[i], NULL, push_run, &pushers[i]), 0);
  }
  for (int i = 0; i < 4; i++) {
    pthread_join(threads[i], NULL);
    assert_true(pushers[i].code == ESP_DEADLINE_EXCEEDED || pushers[i].code == ESP_UNAVAILABLE);
  }
  esp_client_close(client);
  stuck_stop(&stuck);
}

static void test_calls_to_a_stuck_server(void **state) {
  (void)state;
  struct stuck stuck = {0};
  stuck_start(&stuck);
  esp_client *client = open_client(stuck.target, 100, 0);
  struct esp_status st;
  struct esp_leaf_spec spec = {.path = "a", .dtype = ESP_F32};
  esp_leaf_id id;
  float value;
  struct esp_weight weight = {1, &value, 4, 0};
  struct esp_tensor tensor;
  struct esp_description *description;
  assert_int_equal(esp_ping(client, &st), ESP_DEADLINE_EXCEEDED);
  assert_int_equal(esp_declare(client, &spec, 1, &id, &st), ESP_DEADLINE_EXCEEDED);
  assert_int_equal(esp_pull(client, &weight, 1, NULL, &st), ESP_DEADLINE_EXCEEDED);
  assert_int_equal(esp_get(client, "a", &tensor, &st), ESP_DEADLINE_EXCEEDED);
  assert_int_equal(esp_describe(client, NULL, false, &description, &st), ESP_DEADLINE_EXCEEDED);
  assert_int_equal(esp_apply(client, NULL, 0, NULL, NULL, &st), ESP_DEADLINE_EXCEEDED);
  pretend_session(client);
  uint64_t begin_ms = esp_now_ms();
  esp_client_close(client);
  assert_true(esp_now_ms() - begin_ms < 5000);
  stuck_stop(&stuck);
}

/* ---- sequences ---- */

static void test_sequences_stay_in_the_window(void **state) {
  (void)state;
  esp_client *client = open_client("127.0.0.1:1", 1000, 1);
  pretend_session(client);
  client->in_flight_max = 3;
  struct esp_session first, second, third, fourth;
  uint64_t later_ms = esp_now_ms() + 60000;
  assert_int_equal(esp_session_push_begin(client, later_ms, &first, NULL), ESP_OK);
  assert_int_equal(esp_session_push_begin(client, later_ms, &second, NULL), ESP_OK);
  assert_int_equal(esp_session_push_begin(client, later_ms, &third, NULL), ESP_OK);
  assert_true(first.sequence == 1 && second.sequence == 2 && third.sequence == 3);
  assert_int_equal(esp_session_push_begin(client, esp_now_ms() + 20, &fourth, NULL), ESP_DEADLINE_EXCEEDED);
  /* The window is counted from the oldest open one, however many are open. */
  esp_session_push_end(client, &second);
  esp_session_push_end(client, &third);
  assert_int_equal(esp_session_push_begin(client, esp_now_ms() + 20, &fourth, NULL), ESP_DEADLINE_EXCEEDED);
  esp_session_push_end(client, &first);
  assert_int_equal(esp_session_push_begin(client, later_ms, &fourth, NULL), ESP_OK);
  assert_int_equal(fourth.sequence, 4);
  esp_session_push_end(client, &fourth);
  esp_session_push_end(client, &fourth);
  assert_int_equal(client->open_len, 0);
  client->session = 0; /* there is nobody to leave */
  esp_client_close(client);
}

static void test_leaves_of_an_old_lineage(void **state) {
  (void)state;
  esp_client *client = open_client("127.0.0.1:1", 1000, 1);
  pretend_session(client);
  assert_true(esp_leaves_reserve(&client->leaves, 1));
  struct esp_leaf_known leaf = {.id = 1, .bytes = 4, .dtype = ESP_F32, .path = esp_strdup("a"), .frozen = true};
  esp_leaves_put(&client->leaves, &leaf);
  client->leaves_lineage = 1;
  uint64_t lineage;
  assert_int_equal(esp_session_leaves_check(client, 0, 0, &lineage, NULL), ESP_OK);
  assert_int_equal(lineage, 1);
  assert_true(esp_leaf_is_frozen(client, 1));
  client->lineage = 2;
  struct esp_status st;
  float value = 0;
  struct esp_gradient grad = {1, &value, 4, 0};
  struct esp_weight weight = {1, &value, 4, 0};
  assert_int_equal(esp_push(client, &grad, 1, NULL, &st), ESP_ABORTED);
  assert_non_null(strstr(st.message, "its lineage is 0000000000000002, the leaves were declared in 0000000000000001"));
  assert_int_equal(esp_pull(client, &weight, 1, NULL, &st), ESP_ABORTED);
  weight.bytes = 8;
  assert_int_equal(esp_pull(client, &weight, 1, NULL, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, "leaf a has 4 bytes"));
  client->session = 0;
  esp_client_close(client);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_options),
                                     ESP_TEST(test_open_without_memory),
                                     ESP_TEST(test_target_from_the_environment),
                                     ESP_TEST(test_arguments),
                                     ESP_TEST(test_rows),
                                     ESP_TEST(test_redeclare_has_no_values),
                                     ESP_TEST(test_refused_at_once),
                                     ESP_TEST(test_refused_until_the_deadline),
                                     ESP_TEST(test_names),
                                     ESP_TEST(test_hangs_up),
                                     ESP_TEST(test_push_to_a_server_that_never_speaks),
                                     ESP_TEST(test_push_into_a_blocked_socket),
                                     ESP_TEST(test_many_pushes_into_a_blocked_socket),
                                     ESP_TEST(test_calls_to_a_stuck_server),
                                     ESP_TEST(test_sequences_stay_in_the_window),
                                     ESP_TEST(test_leaves_of_an_old_lineage)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
