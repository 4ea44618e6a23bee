/* accept.c with sockets of the test's own: what is handed on, what is closed, what is counted. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "rpc/accept.h"
#include "tests/support/test.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

struct fixture {
  struct esp_accept *accept;
  uint16_t port;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int fds[8]; /* that were handed on */
  unsigned fds_len;
};

static void connected(void *data, int fd) {
  struct fixture *fixture = data;
  pthread_mutex_lock(&fixture->mutex);
  fixture->fds[fixture->fds_len++] = fd;
  pthread_cond_signal(&fixture->changed);
  pthread_mutex_unlock(&fixture->mutex);
}

static enum esp_code try_open(struct fixture *fixture, uint64_t connections_max) {
  *fixture = (struct fixture){.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  const char *const listen[] = {"127.0.0.1:0"};
  const struct esp_accept_options options = {.listen = listen,
                                             .listen_len = 1,
                                             .connections_max = connections_max,
                                             .stall_timeout_ms = 100,
                                             .user_timeout_ms = 1000,
                                             .connected = connected,
                                             .data = fixture};
  struct esp_status st;
  enum esp_code code = esp_accept_new(&options, &fixture->accept, &st);
  if (code != ESP_OK)
    return code;
  const char *const *addresses;
  assert_int_equal(esp_accept_addresses(fixture->accept, &addresses), 1);
  fixture->port = (uint16_t)atoi(strrchr(addresses[0], ':') + 1);
  assert_int_equal(esp_accept_start(fixture->accept, &st), ESP_OK);
  return ESP_OK;
}

static void fixture_close(struct fixture *fixture) {
  esp_accept_free(fixture->accept);
  for (unsigned i = 0; i < fixture->fds_len; i++)
    close(fixture->fds[i]);
}

static int connect_to(const struct fixture *fixture, const char *first) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(fixture->port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
  assert_int_equal(send(fd, first, strlen(first), MSG_NOSIGNAL), strlen(first));
  return fd;
}

/* Waits until the other side has closed it, and closes it. */
static void expect_closed(int fd) {
  char byte;
  assert_true(recv(fd, &byte, 1, 0) <= 0);
  close(fd);
}

/* Waits until so many were handed on; the last one's socket. */
static int wait_handed_on(struct fixture *fixture, unsigned len) {
  pthread_mutex_lock(&fixture->mutex);
  while (fixture->fds_len < len)
    pthread_cond_wait(&fixture->changed, &fixture->mutex);
  int fd = fixture->fds[len - 1];
  pthread_mutex_unlock(&fixture->mutex);
  return fd;
}

static struct esp_accept_stat stat_of(struct fixture *fixture) {
  struct esp_accept_stat stat;
  esp_accept_stat(fixture->accept, &stat);
  return stat;
}

static void handed_on_unread(void **state) {
  (void)state;
  struct fixture fixture;
  assert_int_equal(try_open(&fixture, 3), ESP_OK);
  int client = connect_to(&fixture, PREFACE "and more");
  char bytes[sizeof(PREFACE "and more")] = "";
  assert_int_equal(recv(wait_handed_on(&fixture, 1), bytes, sizeof(bytes), 0), sizeof(bytes) - 1);
  assert_string_equal(bytes, PREFACE "and more");
  assert_int_equal(stat_of(&fixture).connections, 1);
  close(client);
  fixture_close(&fixture);
}

static void others_are_closed(void **state) {
  (void)state;
  struct fixture fixture;
  assert_int_equal(try_open(&fixture, 3), ESP_OK);
  expect_closed(connect_to(&fixture, "GET / HTTP/1.1\r\n\r\n"));
  expect_closed(connect_to(&fixture, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r!"));
  expect_closed(connect_to(&fixture, "PRI * "));
  expect_closed(connect_to(&fixture, ""));
  assert_int_equal(stat_of(&fixture).connections, 0);
  assert_int_equal(stat_of(&fixture).refused, 0);
  assert_int_equal(fixture.fds_len, 0);
  fixture_close(&fixture);
}

static void a_bound(void **state) {
  (void)state;
  struct fixture fixture;
  assert_int_equal(try_open(&fixture, 2), ESP_OK);
  int clients[3];
  for (unsigned i = 0; i < 2; i++) {
    clients[i] = connect_to(&fixture, PREFACE);
    (void)wait_handed_on(&fixture, i + 1);
  }
  for (unsigned i = 0; i < 3; i++)
    expect_closed(connect_to(&fixture, ""));
  assert_int_equal(stat_of(&fixture).refused, 3);
  assert_int_equal(stat_of(&fixture).connections_max, 2);
  /* Whoever has it now closes one: there is room. */
  close(fixture.fds[0]);
  assert_int_equal(stat_of(&fixture).connections, 1);
  clients[2] = connect_to(&fixture, PREFACE);
  int fd = wait_handed_on(&fixture, 3);
  assert_int_equal(stat_of(&fixture).connections, 2);
  fixture.fds[0] = fd;
  fixture.fds_len = 2;
  for (unsigned i = 0; i < 3; i++)
    close(clients[i]);
  fixture_close(&fixture);
}

static void no_memory(void **state) {
  (void)state;
  unsigned refused = 0;
  for (int64_t n = 0; n < 6; n++) {
    struct fixture fixture;
    esp_alloc_fail_at(n);
    enum esp_code code = try_open(&fixture, 2);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
    refused += code != ESP_OK;
    if (code == ESP_OK)
      fixture_close(&fixture);
  }
  assert_int_equal(refused, 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(handed_on_unread),
      ESP_TEST(others_are_closed),
      ESP_TEST(a_bound),
      ESP_TEST(no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
