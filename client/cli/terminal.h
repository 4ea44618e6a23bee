/* A terminal that a live view fills: the alternate screen, single keys, the window's size. It is given back as it was
 * by esp_cli_terminal_end, and by the signals that end a program, which then end it. One at a time. */
#ifndef ESP_CLI_TERMINAL_H
#define ESP_CLI_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

enum esp_cli_key {
  ESP_CLI_KEY_NONE,    /* the time is over */
  ESP_CLI_KEY_QUIT,    /* q, or nobody is there any more */
  ESP_CLI_KEY_RESIZED, /* the window has another size */
  ESP_CLI_KEY_OTHER
};

/* fd_out is a terminal; keys are read from fd_in if that is one too. */
void esp_cli_terminal_begin(int fd_in, int fd_out);
void esp_cli_terminal_end(void); /* idempotent */
/* The window's size, 80 and 24 where the terminal does not know it. */
void esp_cli_terminal_size(unsigned *ret_columns, unsigned *ret_rows);
/* Waits for a key, timeout_ms at most; also where no terminal was begun, which has no keys. */
enum esp_cli_key esp_cli_terminal_wait(uint64_t timeout_ms);

#endif
