/* Paths and names: what they may hold, their order, and how they are shown to people.
 *
 * Path order compares components byte by byte, which is the order of the whole strings where a dot counts as less than
 * any other byte: `a` < `a.b` < `a-b`. So the leaves below a node are neighbours.
 *
 * The checks fail with INVALID_ARGUMENT and a sentence that names the component; the rest can't fail. */
#include <espalier/status.h>

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "tree/tree_internal.h"

const char *esp_path_print(const char *path, size_t len, char *buffer, size_t size) {
  if (size == 0) {
    return "";
  }
  size_t used = 0;
  size_t used_cut = 0; /* as much of it as leaves room for the dots of a cut */
  size_t n;
  for (size_t i = 0; i < len; i += n) {
    uint32_t character;
    n = esp_utf8_next(path + i, len - i, &character);
    bool plain = n > 0 && !esp_character_is_control(character);
    n = n > 0 ? n : 1;
    size_t need = plain ? n : 4 * n;
    if (used + need >= size) {
      snprintf(buffer + used_cut, size - used_cut, "...");
      return buffer;
    }
    for (size_t byte = 0; byte < n && !plain; byte++) {
      snprintf(buffer + used + 4 * byte, 5, "\\x%02x", (unsigned char)path[i + byte]);
    }
    if (plain) {
      memcpy(buffer + used, path + i, n);
    }
    used += need;
    used_cut = used + 4 <= size ? used : used_cut;
  }
  buffer[used] = '\0';
  return buffer;
}

/* The characters that selectors use, which no component has. */
static bool is_selector_character(char byte) {
  switch (byte) {
  case '*':
  case '?':
  case '{':
  case '}':
  case '[':
  case ']':
  case '(':
  case ')':
  case '&':
  case '|':
  case '!':
  case ':':
  case '<':
  case '>':
  case '=':
  case '@':
  case ',':
  case '"':
    return true;
  default:
    return false;
  }
}

/* Why the character at text has no place in a component, or NULL. *ret_len is its length in bytes. */
static const char *character_fault(const char *text, size_t left, size_t *ret_len) {
  if (*text > ' ' && *text < 0x7f) { /* nearly all of them, and a million paths have many */
    *ret_len = 1;
    return is_selector_character(*text) ? "a character that selectors use" : NULL;
  }
  uint32_t character;
  *ret_len = esp_utf8_next(text, left, &character);
  if (*ret_len == 0) {
    *ret_len = 1;
    return "a byte that is not UTF-8";
  }
  if (esp_character_is_control(character)) {
    return "a control character";
  }
  return character == ' ' ? "white space" : NULL;
}

/* INVALID_ARGUMENT for component number `number` (from 1), which is path[begin .. end). */
static enum esp_code component_check(const char *path, size_t len, size_t begin, size_t end, size_t number,
                                     struct esp_status *st) {
  char text[ESP_PATH_TEXT_MAX];
  if (begin == end) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "path \"%s\": component %zu is empty",
                    esp_path_print(path, len, text, sizeof text), number);
  }
  if (end - begin > ESP_COMPONENT_BYTES_MAX) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "path \"%s\": component %zu has %zu bytes; at most %d are allowed",
                    esp_path_print(path, len, text, sizeof text), number, end - begin, ESP_COMPONENT_BYTES_MAX);
  }
  size_t n;
  for (size_t i = begin; i < end; i += n) {
    const char *fault = character_fault(path + i, end - i, &n);
    if (fault) {
      char character[20];
      return esp_fail(st, ESP_INVALID_ARGUMENT, "path \"%s\": component %zu has %s: \"%s\"",
                      esp_path_print(path, len, text, sizeof text), number, fault,
                      esp_path_print(path + i, n, character, sizeof character));
    }
  }
  return ESP_OK;
}

enum esp_code esp_path_check(const char *path, size_t len, struct esp_status *st) {
  char text[ESP_PATH_TEXT_MAX];
  if (len == 0) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a path is empty");
  }
  if (len > ESP_PATH_BYTES_MAX) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "path \"%s\" has %zu bytes; at most %d are allowed",
                    esp_path_print(path, ESP_PATH_BYTES_MAX, text, sizeof text), len, ESP_PATH_BYTES_MAX);
  }
  size_t number = 1;
  for (size_t begin = 0;; number++) {
    const char *dot = memchr(path + begin, '.', len - begin);
    size_t end = dot ? (size_t)(dot - path) : len;
    enum esp_code code = component_check(path, len, begin, end, number, st);
    if (code != ESP_OK) {
      return code;
    }
    if (!dot) {
      break;
    }
    begin = end + 1;
  }
  if (number > ESP_DEPTH_MAX) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "path \"%s\" has %zu components; at most %d are allowed",
                    esp_path_print(path, len, text, sizeof text), number, ESP_DEPTH_MAX);
  }
  return ESP_OK;
}

enum esp_code esp_name_check(const char *what, const char *name, struct esp_status *st) {
  char text[ESP_PATH_TEXT_MAX];
  size_t len = strnlen(name, ESP_NAME_BYTES_MAX + 1);
  if (len == 0) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the name of a %s is empty", what);
  }
  if (len > ESP_NAME_BYTES_MAX) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s \"%s\" has more than %d bytes", what,
                    esp_path_print(name, len, text, sizeof text), ESP_NAME_BYTES_MAX);
  }
  size_t n;
  for (size_t i = 0; i < len; i += n) {
    const char *fault = character_fault(name + i, len - i, &n);
    if (fault) {
      char character[20];
      return esp_fail(st, ESP_INVALID_ARGUMENT, "%s \"%s\" has %s: \"%s\"", what,
                      esp_path_print(name, len, text, sizeof text), fault,
                      esp_path_print(name + i, n, character, sizeof character));
    }
  }
  return ESP_OK;
}

/* A byte's rank in path order. */
static int rank(char byte) {
  return byte == '.' ? 0 : (unsigned char)byte + 1;
}

int esp_path_compare(const char *a, size_t a_len, const char *b, size_t b_len) {
  size_t len = a_len < b_len ? a_len : b_len;
  size_t i = 0;
  while (i + 8 <= len && memcmp(a + i, b + i, 8) == 0) {
    i += 8;
  }
  while (i < len && a[i] == b[i]) {
    i++;
  }
  if (i < len) {
    return rank(a[i]) - rank(b[i]);
  }
  return a_len < b_len ? -1 : a_len > b_len;
}

bool esp_path_within(const char *path, size_t len, const char *node, size_t node_len) {
  if (node_len == 0) {
    return true;
  }
  return len >= node_len && (len == node_len || path[node_len] == '.') && memcmp(path, node, node_len) == 0;
}
