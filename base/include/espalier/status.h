/* Status codes and error messages: what every fallible function of Espalier returns. Installed, and included by
 * espalier.h and admin.h.
 *
 * A function that can fail returns an enum esp_code by value (ESP_OK is 0) and takes, last, an optional pointer to a
 * caller-allocated struct esp_status for the sentence. Outputs are untouched on failure. Nothing here allocates; all
 * of it may be called from any thread. */
#ifndef ESPALIER_STATUS_H
#define ESPALIER_STATUS_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The values are gRPC's canonical codes, so that a code crosses the wire unchanged. */
#define ESP_CODE_MAP(X)                                                                                                \
  X(OK, 0)                                                                                                             \
  X(CANCELLED, 1)                                                                                                      \
  X(UNKNOWN, 2)                                                                                                        \
  X(INVALID_ARGUMENT, 3)                                                                                               \
  X(DEADLINE_EXCEEDED, 4)                                                                                              \
  X(NOT_FOUND, 5)                                                                                                      \
  X(ALREADY_EXISTS, 6)                                                                                                 \
  X(PERMISSION_DENIED, 7)                                                                                              \
  X(RESOURCE_EXHAUSTED, 8)                                                                                             \
  X(FAILED_PRECONDITION, 9)                                                                                            \
  X(ABORTED, 10)                                                                                                       \
  X(OUT_OF_RANGE, 11)                                                                                                  \
  X(UNIMPLEMENTED, 12)                                                                                                 \
  X(INTERNAL, 13)                                                                                                      \
  X(UNAVAILABLE, 14)                                                                                                   \
  X(DATA_LOSS, 15)                                                                                                     \
  X(UNAUTHENTICATED, 16)

enum esp_code {
#define ESP_CODE_ENUM(name, value) ESP_##name = (value),
  ESP_CODE_MAP(ESP_CODE_ENUM)
#undef ESP_CODE_ENUM
};

#define ESP_MESSAGE_BYTES_MAX 2048

struct esp_status {
  enum esp_code code;                  /* the same as was returned */
  char message[ESP_MESSAGE_BYTES_MAX]; /* one sentence or more, NUL-terminated UTF-8 without control characters; ""
                                          after success */
};

#if defined(__GNUC__)
#define ESP_WARN_UNUSED __attribute__((__warn_unused_result__))
#define ESP_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
#else
#define ESP_WARN_UNUSED
#define ESP_PRINTF(text, first)
#endif

/* The code's name, as "NOT_FOUND"; "UNKNOWN" for a value that is none. */
const char *esp_code_name(enum esp_code code);

/* Writes code and message to st (which may be NULL) and returns code. A message that is too long is cut at a character;
 * control characters and bytes that are not UTF-8 become question marks. */
enum esp_code esp_fail(struct esp_status *st, enum esp_code code, const char *format, ...) ESP_PRINTF(3, 4);
enum esp_code esp_fail_v(struct esp_status *st, enum esp_code code, const char *format, va_list args) ESP_PRINTF(3, 0);

#ifdef __clang_analyzer__
/* What the static analyzer can't see: the code comes back. Without it every failure might be a success. */
#define esp_fail(st, code, ...) ((void)esp_fail(st, code, __VA_ARGS__), (code))
#endif

#ifdef __cplusplus
}
#endif
#endif
