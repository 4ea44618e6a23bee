/* listen.c: which addresses are taken, and what becomes of a socket's file that is in the way. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "rpc/listen.h"
#include "rpc/rpc.h"
#include "tests/support/test.h"

struct fixture {
  char directory[32];
  char path[48];
};

static void fixture_init(struct fixture *fixture) {
  strcpy(fixture->directory, "/tmp/espalier-XXXXXX");
  assert_non_null(mkdtemp(fixture->directory));
  (void)snprintf(fixture->path, sizeof(fixture->path), "%s/socket", fixture->directory);
}

static void fixture_done(struct fixture *fixture) {
  (void)unlink(fixture->path);
  assert_int_equal(rmdir(fixture->directory), 0);
}

/* A socket that is bound to the path, and listens. */
static int listen_on(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
  assert_int_equal(listen(fd, 1), 0);
  return fd;
}

static void addresses(void **state) {
  (void)state;
  static const struct {
    const char *address;
    enum esp_code without; /* --insecure */
    enum esp_code with;
  } cases[] = {
      {"127.0.0.1:7433", ESP_OK, ESP_OK},
      {"127.0.0.1:0", ESP_OK, ESP_OK},
      {"127.255.0.9:65535", ESP_OK, ESP_OK},
      {"localhost:1", ESP_OK, ESP_OK},
      {"[::1]:0", ESP_OK, ESP_OK},
      {"unix:/tmp/a", ESP_OK, ESP_OK},
      {"unix:relative", ESP_OK, ESP_OK},
      {"0.0.0.0:7433", ESP_FAILED_PRECONDITION, ESP_OK},
      {"128.0.0.1:7433", ESP_FAILED_PRECONDITION, ESP_OK},
      {"[::]:7433", ESP_FAILED_PRECONDITION, ESP_OK},
      {"example.org:7433", ESP_FAILED_PRECONDITION, ESP_OK},
      {"127.0.0.1.example.org:7433", ESP_FAILED_PRECONDITION, ESP_OK},
      {"", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"127.0.0.1", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"127.0.0.1:", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"127.0.0.1:65536", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"127.0.0.1:-1", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"127.0.0.1: 1", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {":7433", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"::1:7433", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"[]:7433", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"[:7433", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"[::1:7433", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"[127.0.0.1]:7433", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"dns:///localhost:7433", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
      {"unix:", ESP_INVALID_ARGUMENT, ESP_INVALID_ARGUMENT},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct esp_status st;
    assert_int_equal(esp_listen_check(cases[i].address, false, &st), cases[i].without);
    assert_true(cases[i].without != ESP_FAILED_PRECONDITION || strstr(st.message, "--insecure") != NULL);
    assert_int_equal(esp_listen_check(cases[i].address, true, &st), cases[i].with);
  }
}

static void long_socket_path(void **state) {
  (void)state;
  char address[200] = "unix:/";
  struct esp_status st;
  memset(address + 6, 'a', 106);
  assert_int_equal(esp_listen_check(address, false, &st), ESP_OK);
  address[6 + 106] = 'a';
  assert_int_equal(esp_listen_check(address, false, &st), ESP_INVALID_ARGUMENT);
}

static void nothing_in_the_way(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_status st;
  fixture_init(&fixture);
  assert_int_equal(esp_listen_clear(fixture.path, &st), ESP_OK);
  fixture_done(&fixture);
}

static void stale_socket_is_removed(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_status st;
  fixture_init(&fixture);
  close(listen_on(fixture.path));
  assert_int_equal(access(fixture.path, F_OK), 0);
  assert_int_equal(esp_listen_clear(fixture.path, &st), ESP_OK);
  assert_int_equal(access(fixture.path, F_OK), -1);
  fixture_done(&fixture);
}

static void served_socket_stays(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_status st;
  fixture_init(&fixture);
  int fd = listen_on(fixture.path);
  assert_int_equal(esp_listen_clear(fixture.path, &st), ESP_UNAVAILABLE);
  assert_non_null(strstr(st.message, "another server"));
  assert_int_equal(access(fixture.path, F_OK), 0);
  close(fd);
  fixture_done(&fixture);
}

static void other_file_stays(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_status st;
  fixture_init(&fixture);
  fclose(fopen(fixture.path, "w"));
  assert_int_equal(esp_listen_clear(fixture.path, &st), ESP_UNAVAILABLE);
  assert_non_null(strstr(st.message, "no socket"));
  assert_int_equal(access(fixture.path, F_OK), 0);
  fixture_done(&fixture);
}

/* The peer's name of the accepted end of a connection to this listening socket. */
static void expect_peer(int listener, const struct sockaddr *address, socklen_t len, const char *begins) {
  char text[64];
  int ours = socket(address->sa_family, SOCK_STREAM, 0);
  assert_int_equal(connect(ours, address, len), 0);
  int theirs = accept(listener, NULL, NULL);
  assert_true(theirs >= 0);
  esp_listen_peer(theirs, text, sizeof(text));
  assert_memory_equal(text, begins, strlen(begins));
  close(ours);
  close(theirs);
}

static void peer_of_an_address(const char *address, const char *begins) {
  struct esp_listener listener;
  struct sockaddr_storage bound = {0};
  socklen_t len = sizeof(bound);
  struct esp_status st;
  assert_int_equal(esp_listen_open(address, 1000, &listener, &st), ESP_OK);
  assert_int_equal(getsockname(listener.fds[0], (struct sockaddr *)&bound, &len), 0);
  expect_peer(listener.fds[0], (struct sockaddr *)&bound, len, begins);
  esp_listen_done(&listener);
}

static void peers(void **state) {
  (void)state;
  struct fixture fixture;
  char address[128], text[64];
  peer_of_an_address("127.0.0.1:0", "127.0.0.1:");
  peer_of_an_address("[::1]:0", "[::1]:");
  fixture_init(&fixture);
  (void)snprintf(address, sizeof(address), "unix:%s", fixture.path);
  peer_of_an_address(address, "unix");
  fixture_done(&fixture);
  esp_listen_peer(-1, text, sizeof(text));
  assert_string_equal(text, "unknown");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(addresses),
      ESP_TEST(long_socket_path),
      ESP_TEST(nothing_in_the_way),
      ESP_TEST(stale_socket_is_removed),
      ESP_TEST(served_socket_stays),
      ESP_TEST(other_file_stays),
      ESP_TEST(peers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
