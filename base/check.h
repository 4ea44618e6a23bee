/* Assertions that stay on in release builds: for broken invariants of ours, never for input. */
#ifndef ESP_BASE_CHECK_H
#define ESP_BASE_CHECK_H

#define ESP_CHECK(condition) ((condition) ? (void)0 : esp_check_failed(#condition, __FILE__, __LINE__))

/* Prints the broken invariant to stderr and aborts. */
_Noreturn void esp_check_failed(const char *condition, const char *file, int line);

#endif
