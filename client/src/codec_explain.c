/* Explanations as bytes: pages put together by codec_answer.c. Facts of all leaves are in one list, which moves while
 * it grows, so that pointers into it are set at each page's end. */
#include "client/src/codec_pb.h"

enum { LEAVES, FACTS };

enum esp_code esp_encode_explain(struct esp_buf *buf, const char *selection, struct esp_status *st) {
  Espalier__V1__ExplainRequest message = ESPALIER__V1__EXPLAIN_REQUEST__INIT;
  message.selection = esp_pb_text(selection);
  return esp_pb_pack(buf, &message.base, st);
}

static bool add_fact(struct esp_answer *answer, const Espalier__V1__ExplainResponse__Fact *from) {
  struct esp_leaf_fact *fact = esp_answer_add(answer, FACTS, sizeof *fact);
  if (fact == NULL)
    return false;
  fact->epoch = from->epoch;
  return esp_answer_copy_text(answer, from->what, &fact->what) &&
         esp_answer_copy_text(answer, from->value, &fact->value) &&
         esp_answer_copy_text(answer, from->because, &fact->because);
}

static bool add_leaf(struct esp_answer *answer, const Espalier__V1__ExplainResponse__Leaf *from) {
  struct esp_leaf_explanation *leaf = esp_answer_add(answer, LEAVES, sizeof *leaf);
  if (leaf == NULL)
    return false;
  leaf->leaf = from->id;
  leaf->facts_len = from->n_facts;
  bool ok = esp_answer_copy_text(answer, from->path, &leaf->path);
  for (size_t i = 0; i < from->n_facts && ok; i++)
    ok = add_fact(answer, from->facts[i]);
  return ok;
}

static enum esp_code add_page(struct esp_answer *answer, void *result, const void *message, struct esp_status *st) {
  struct esp_explanation *explanation = result;
  const Espalier__V1__ExplainResponse *page = message;
  (void)st;
  for (size_t i = 0; i < page->n_leaves; i++)
    if (!add_leaf(answer, page->leaves[i]))
      return ESP_RESOURCE_EXHAUSTED;
  struct esp_leaf_explanation *leaves = answer->lists[LEAVES].items;
  const struct esp_leaf_fact *facts = answer->lists[FACTS].items;
  explanation->epoch = page->epoch;
  explanation->commit = page->commit;
  explanation->lineage = page->lineage;
  explanation->leaves = leaves;
  explanation->len = answer->lists[LEAVES].len;
  for (size_t i = 0, at = 0; i < explanation->len && facts != NULL; at += leaves[i++].facts_len)
    leaves[i].facts = facts + at;
  return ESP_OK;
}

enum esp_code esp_decode_explain(struct esp_in in, struct esp_explanation **result, struct esp_status *st) {
  static const struct esp_answer_kind kind = {&espalier__v1__explain_response__descriptor,
                                              sizeof(struct esp_explanation), add_page,
                                              "an explanation of so many leaves"};
  return esp_answer_add_page(&kind, in, result, st);
}

void esp_explanation_free(struct esp_explanation *explanation) {
  esp_answer_free(explanation);
}
