#include <stdio.h>
#include <string.h>

#include "client/src/address.h"
#include "tests/support/test.h"

static void test_good(void **state) {
  (void)state;
  static const struct {
    const char *text, *host, *port, *path, *shown;
  } cases[] = {
      {"127.0.0.1:7433", "127.0.0.1", "7433", "", "127.0.0.1:7433"},
      {"localhost", "localhost", "7433", "", "localhost:7433"},
      {"a.b.example:1", "a.b.example", "1", "", "a.b.example:1"},
      {"[::1]:65535", "::1", "65535", "", "[::1]:65535"},
      {"[fe80::1]", "fe80::1", "7433", "", "[fe80::1]:7433"},
      {"unix:/run/e.sock", "", "", "/run/e.sock", "unix:/run/e.sock"},
      {"unix:///run/e.sock", "", "", "/run/e.sock", "unix:/run/e.sock"},
      {"unix:e.sock", "", "", "e.sock", "unix:e.sock"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct esp_address address;
    assert_int_equal(esp_address_parse(cases[i].text, &address, NULL), ESP_OK);
    assert_string_equal(address.host, cases[i].host);
    assert_string_equal(address.port, cases[i].port);
    assert_string_equal(address.path, cases[i].path);
    assert_string_equal(address.text, cases[i].shown);
  }
}

static void test_bad(void **state) {
  (void)state;
  static const struct {
    const char *text, *says;
  } cases[] = {
      {"", "the host is empty"},
      {":7433", "the host is empty"},
      {"host:", "the port is a number"},
      {"host:0", "the port is a number"},
      {"host:65536", "the port is a number"},
      {"host:99999999999", "the port is a number"},
      {"host:7a", "the port is a number"},
      {"host:-1", "the port is a number"},
      {"::1", "needs brackets"},
      {"[::1", "not closed"},
      {"[::1]7433", "comes a colon"},
      {"[]:7433", "the host is empty"},
      {"http://host:1", "needs brackets"},
      {"a b:1", "no blanks"},
      {"unix:", "the path is empty"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct esp_address address = {.port = "kept"};
    struct esp_status st;
    assert_int_equal(esp_address_parse(cases[i].text, &address, &st), ESP_INVALID_ARGUMENT);
    if (strstr(st.message, cases[i].says) == NULL)
      fail_msg("%s: %s", cases[i].text, st.message);
    assert_string_equal(address.port, "kept");
  }
}

static void test_too_long(void **state) {
  (void)state;
  char text[600] = "unix:";
  memset(text + 5, 'a', 108);
  struct esp_address address;
  assert_int_equal(esp_address_parse(text, &address, NULL), ESP_INVALID_ARGUMENT);
  text[5 + 107] = 0;
  assert_int_equal(esp_address_parse(text, &address, NULL), ESP_OK);
  memset(text, 'a', sizeof text - 1);
  text[sizeof text - 1] = 0;
  assert_int_equal(esp_address_parse(text, &address, NULL), ESP_INVALID_ARGUMENT);
  text[256] = 0;
  assert_int_equal(esp_address_parse(text, &address, NULL), ESP_INVALID_ARGUMENT);
  text[255] = 0;
  assert_int_equal(esp_address_parse(text, &address, NULL), ESP_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_good), ESP_TEST(test_bad), ESP_TEST(test_too_long)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
