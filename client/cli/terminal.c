/* The terminal of a live view, in plain ANSI sequences, which every terminal of today has.
 *
 * Signals that end the program put the terminal right from within their handler and then do what they always do: so
 * they work at once, whatever the program is waiting for. The window's size is asked for with each picture; its signal
 * only ends the wait. */
#include "client/cli/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define COLUMNS_DEFAULT 80
#define ROWS_DEFAULT 24
/* The alternate screen; no cursor; what is too long for a line is cut, not wrapped. And back, in reverse. */
#define ENTER "\033[?1049h\033[?25l\033[?7l"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

/* Of the process, because a signal's handler is. */
static struct {
  volatile sig_atomic_t active; /* between begin and end */
  volatile sig_atomic_t keys;   /* fd_in is a terminal, whose settings are changed */
  int fd_in;
  int fd_out;
  struct termios before; /* settings of fd_in, where keys is set */
} terminal;

static void write_all(const char *text) {
  size_t len = strlen(text);
  while (len > 0) {
    ssize_t wrote = write(terminal.fd_out, text, len);
    if (wrote < 0 && errno != EINTR)
      return; /* nobody is there to see it */
    if (wrote > 0) {
      text += wrote;
      len -= (size_t)wrote;
    }
  }
}

/* Safe in a signal's handler. */
void esp_cli_terminal_end(void) {
  if (!terminal.active)
    return;
  terminal.active = 0;
  write_all(LEAVE);
  if (terminal.keys)
    tcsetattr(terminal.fd_in, TCSANOW, &terminal.before);
}

static void on_end(int number) {
  int saved = errno;
  esp_cli_terminal_end();
  raise(number); /* SA_RESETHAND: the default, once this has returned */
  errno = saved;
}

static void on_resize(int number) {
  (void)number; /* it has ended the wait */
}

static void catch_signals(void) {
  struct sigaction end = {.sa_handler = on_end, .sa_flags = (int)SA_RESETHAND};
  struct sigaction resize = {.sa_handler = on_resize};
  for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
    sigaction(ends[i], &end, NULL);
  sigaction(SIGWINCH, &resize, NULL);
}

/* Keys come one by one and unseen. Ctrl-C stays a signal; Ctrl-Z would leave the shell with our screen. */
static void take_keys(void) {
  if (tcgetattr(terminal.fd_in, &terminal.before) != 0)
    return;
  struct termios settings = terminal.before;
  settings.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
  settings.c_cc[VSUSP] = _POSIX_VDISABLE;
  settings.c_cc[VMIN] = 0;
  settings.c_cc[VTIME] = 0;
  terminal.keys = tcsetattr(terminal.fd_in, TCSANOW, &settings) == 0;
}

void esp_cli_terminal_begin(int fd_in, int fd_out) {
  terminal.fd_in = fd_in;
  terminal.fd_out = fd_out;
  terminal.keys = 0;
  terminal.active = 1;
  catch_signals();
  take_keys();
  write_all(ENTER);
}

void esp_cli_terminal_size(unsigned *ret_columns, unsigned *ret_rows) {
  struct winsize size = {0};
  bool known = ioctl(terminal.fd_out, TIOCGWINSZ, &size) == 0;
  *ret_columns = known && size.ws_col > 0 ? size.ws_col : COLUMNS_DEFAULT;
  *ret_rows = known && size.ws_row > 0 ? size.ws_row : ROWS_DEFAULT;
}

enum esp_cli_key esp_cli_terminal_wait(uint64_t timeout_ms) {
  struct pollfd keys = {.fd = terminal.fd_in, .events = POLLIN};
  bool has_keys = terminal.active && terminal.keys;
  int ready = poll(&keys, has_keys ? 1 : 0, timeout_ms < INT32_MAX ? (int)timeout_ms : INT32_MAX);
  if (ready < 0)
    return ESP_CLI_KEY_RESIZED;
  if (ready == 0)
    return ESP_CLI_KEY_NONE;
  char key = 0;
  ssize_t got = read(terminal.fd_in, &key, 1);
  return got <= 0 || key == 'q' || key == 'Q' ? ESP_CLI_KEY_QUIT : ESP_CLI_KEY_OTHER;
}
