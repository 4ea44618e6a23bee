/* Finds connections on which bytes come in and no message is ever whole. inflow.h says why.
 *
 * A connection is compared with what it was at the look before: where a call began or ended on it, or a message came or
 * went (readers of much say much about flow control), counting starts anew. A client that mixes whole messages with an
 * endless one is not found; it is held back by nothing but --max-streams and --max-connections. */
#include "rpc/inflow.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/check.h"

/* So little between two looks is no message but pings, which may go on for days. */
#define PINGS_BYTES_MAX 64

void esp_inflows_done(struct esp_inflows *inflows) {
  esp_free(inflows->by_connection);
  *inflows = (struct esp_inflows){0};
}

uint64_t esp_inflows_enter(struct esp_inflows *inflows, int connection) {
  size_t len = (size_t)connection + 1;
  if (len > inflows->len) {
    struct esp_inflow **array = &inflows->by_connection;
    if (!esp_grow((void **)array, &inflows->capacity, len, sizeof(**array)))
      return 0;
    memset(*array + inflows->len, 0, (len - inflows->len) * sizeof(**array));
    inflows->len = len;
  }
  return ++inflows->by_connection[connection].calls;
}

void esp_inflows_leave(struct esp_inflows *inflows, int connection) {
  struct esp_inflow *inflow = &inflows->by_connection[connection];
  ESP_CHECK(inflow->calls > 0);
  inflow->calls--;
}

void esp_inflows_begin(struct esp_inflows *inflows) {
  for (size_t i = 0; i < inflows->len; i++)
    inflows->by_connection[i].seen = 0;
}

void esp_inflows_add(struct esp_inflows *inflows, int connection, uint64_t call, uint64_t messages) {
  /* A sum of odd multiples: it differs where a call is another one, and where one has got a message. */
  inflows->by_connection[connection].seen += call * UINT64_C(0x9e3779b97f4a7c15) + messages;
}

static void look(struct esp_inflow *inflow, uint64_t bytes_max, uint64_t bytes) {
  bool has_moved = inflow->seen != inflow->seen_was || bytes < inflow->bytes;
  if (has_moved)
    inflow->bytes = bytes;
  else if (bytes - inflow->bytes_was <= PINGS_BYTES_MAX)
    inflow->bytes += bytes - inflow->bytes_was;
  inflow->seen_was = inflow->seen;
  inflow->bytes_was = bytes;
  inflow->is_endless = (bytes - inflow->bytes) / inflow->calls > bytes_max;
}

void esp_inflows_end(struct esp_inflows *inflows, uint64_t bytes_max, uint64_t (*received)(int connection)) {
  for (size_t i = 0; i < inflows->len; i++)
    if (inflows->by_connection[i].calls > 0)
      look(&inflows->by_connection[i], bytes_max, received((int)i));
}

bool esp_inflows_is_endless(const struct esp_inflows *inflows, int connection) {
  return inflows->by_connection[connection].is_endless;
}

uint64_t esp_inflow_received(int connection) {
  struct tcp_info info;
  socklen_t len = sizeof(info);
  if (getsockopt(connection, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
      len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
    return 0;
  return info.tcpi_bytes_received;
}
