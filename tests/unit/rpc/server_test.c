/* server.c without calls: starting, refusing and ending. What calls do is tested with real clients, in the integration
 * tests. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "fixture.h"
#include "rpc/call.h"

static void addresses_are_real(void **state) {
  (void)state;
  char directory[] = "/tmp/espalier-XXXXXX", unix_address[64];
  assert_non_null(mkdtemp(directory));
  (void)snprintf(unix_address, sizeof(unix_address), "unix:%s/socket", directory);
  const char *const listen[] = {"127.0.0.1:0", unix_address};
  struct esp_engine *engine = make_engine();
  struct esp_rpc_server *server = NULL;
  struct esp_status st;
  assert_int_equal(start(engine, listen, 2, &server, &st), ESP_OK);
  const char *const *addresses;
  assert_int_equal(esp_rpc_server_addresses(server, &addresses), 2);
  assert_int_equal(strncmp(addresses[0], "127.0.0.1:", 10), 0);
  assert_true(atoi(addresses[0] + 10) > 0);
  assert_string_equal(addresses[1], unix_address);
  struct stat info;
  assert_int_equal(stat(unix_address + 5, &info), 0);
  assert_true(S_ISSOCK(info.st_mode));
  assert_int_equal(info.st_mode & 0777, 0600);

  /* Neither can be had twice. */
  struct esp_rpc_server *second = NULL;
  assert_int_equal(start(engine, &addresses[0], 1, &second, &st), ESP_UNAVAILABLE);
  assert_non_null(strstr(st.message, addresses[0]));
  assert_int_equal(start(engine, &addresses[1], 1, &second, &st), ESP_UNAVAILABLE);
  assert_non_null(strstr(st.message, unix_address));
  assert_null(second);

  end(server);
  esp_engine_free(engine);
  /* The socket's file went with the server. */
  assert_int_equal(rmdir(directory), 0);
}

/* Each allocation of the start fails once: it starts all the same or says so, and nothing is left. */
static void no_memory(void **state) {
  (void)state;
  const char *const listen[] = {"127.0.0.1:0"};
  struct esp_engine *engine = make_engine();
  unsigned refused = 0;
  for (int64_t n = 0; n < 16; n++) {
    struct esp_rpc_server *server = NULL;
    struct esp_status st;
    esp_alloc_fail_at(n);
    enum esp_code code = start(engine, listen, 1, &server, &st);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
    refused += code != ESP_OK;
    if (code == ESP_OK)
      end(server);
  }
  assert_true(refused >= 4);
  esp_engine_free(engine);
}

static void methods(void **state) {
  (void)state;
  static const char push[] = "/espalier.v1.ParameterServer/Push", save[] = "/espalier.v1.Admin/Save";
  assert_non_null(esp_method_find(push, strlen(push))->message);
  assert_null(esp_method_find(push, strlen(push) - 1));
  assert_null(esp_method_find(save, strlen(save))->message);
  assert_null(esp_method_find("", 0));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(addresses_are_real),
      ESP_TEST(no_memory),
      ESP_TEST(methods),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
