// dmlc/ps-lite with an optimizer in the server's handler. usage: pslite_peer SHAPES OPT one|each; DMLC_* by run.py.
//
// `one`: all 161 keys in one ZPushPull. `each`: a ZPushPull per key, all in flight, then waiting for all. Nothing is
// copied on the way out: the worker's SArrays wrap its buffers, and the server answers with a view of its store (so a
// pull may see a half-made update of another worker; the handler itself is one thread). ps-lite's worker copies
// what it receives into the caller's buffer.
#include "ps/ps.h"
#include "workload.h"

using ps::Key;
using ps::SArray;

struct store {
  workload x;
  std::string opt;
  std::vector<float> w, m, v;
  std::vector<long> t;

  void apply(size_t k, const float *g) {
    size_t o = x.offset[k], n = x.size[k];
    if (opt == "sgd")
      sgd_step(&w[o], g, n);
    else if (opt == "momentum")
      momentum_step(&w[o], &m[o], g, n);
    else
      adam_step(&w[o], &m[o], &v[o], g, n, ++t[k]);
  }

  void operator()(const ps::KVMeta &req, const ps::KVPairs<float> &data, ps::KVServer<float> *server) {
    ps::KVPairs<float> res;
    size_t first = data.keys[0], count = data.keys.size(), at = 0;
    if (req.push)
      for (size_t i = 0; i < count; i++) {
        apply(data.keys[i], data.vals.data() + at);
        at += x.size[data.keys[i]];
      }
    if (req.pull) { // the drivers only ask for runs of consecutive keys
      res.keys = data.keys;
      res.vals = SArray<float>(&w[x.offset[first]], x.offset[first + count] - x.offset[first], false);
      res.lens.resize(count);
      for (size_t i = 0; i < count; i++)
        res.lens[i] = (int)x.size[first + i];
    }
    server->Response(req, res);
  }
};

struct request {
  SArray<Key> keys;
  SArray<float> grads, weights;
  SArray<int> lens;
};

static request make_request(const workload &x, size_t first, size_t count, float *g, float *w) {
  request r;
  size_t o = x.offset[first], n = x.offset[first + count] - o;
  r.keys.resize(count);
  r.lens.resize(count);
  for (size_t i = 0; i < count; i++) {
    r.keys[i] = first + i;
    r.lens[i] = (int)x.size[first + i];
  }
  r.grads = SArray<float>(g + o, n, false);
  r.weights = SArray<float>(w + o, n, false);
  return r;
}

// ps-lite takes requests for a server before it has its handler, and dies of them: workers wait until it has.
static void await_handler() {
  ps::Postoffice::Get()->Barrier(0, ps::kServerGroup + ps::kWorkerGroup);
}

static void work(const workload &x, const workload &full, const std::string &opt, bool each) {
  ps::KVWorker<float> kv(0, 0);
  await_handler();
  size_t total = x.offset.back(), count = full.size.size();
  std::vector<float> g(total), w(total);
  std::vector<request> all;
  std::vector<int> wait;
  for (size_t k = 0; k < x.size.size(); k++)
    for (size_t j = 0; j < x.size[k]; j++)
      g[x.offset[k] + j] = gradient(j);
  if (each)
    for (size_t k = 0; k < count; k++)
      all.push_back(make_request(x, k, 1, g.data(), w.data()));
  else
    all.push_back(make_request(x, 0, count, g.data(), w.data()));
  request small = make_request(x, count, 1, g.data(), w.data());

  auto run = [&](const std::function<int(request &)> &send) {
    wait.clear();
    for (auto &r : all)
      wait.push_back(send(r));
    for (int ts : wait)
      kv.Wait(ts);
  };
  auto both = [&](request &r) { return kv.ZPushPull(r.keys, r.grads, &r.weights, &r.lens); };
  auto push = [&](request &r) { return kv.ZPush(r.keys, r.grads, r.lens); };
  auto pull = [&](request &r) { return kv.ZPull(r.keys, &r.weights, &r.lens); };

  if (ps::MyRank() == 0) {
    run(both);
    run(both);
    say_ready(opt, full, w.data());
  } else {
    say_ready(opt, full, NULL);
  }
  answer_phases({{"pushpull", [&] { run(both); }},
                 {"push", [&] { run(push); }},
                 {"pull", [&] { run(pull); }},
                 {"small", [&] { kv.Wait(both(small)); }}});
}

int main(int argc, char **argv) {
  if (argc != 4)
    return 2;
  workload full = load_workload(argv[1]), x = full;
  x.size.push_back(256); // the small tensor is key 161
  x.offset.push_back(x.offset.back() + 256);
  ps::Start(0);
  if (ps::IsServer()) {
    size_t total = x.offset.back();
    std::string opt = argv[2];
    store s{x, opt, std::vector<float>(total), {}, {}, std::vector<long>(x.size.size())};
    if (opt != "sgd")
      s.m.resize(total);
    if (opt == "adam")
      s.v.resize(total);
    for (size_t k = 0; k < full.size.size(); k++)
      std::fill(&s.w[x.offset[k]], &s.w[x.offset[k]] + x.size[k], first_weight(k));
    auto *server = new ps::KVServer<float>(0);
    server->set_request_handle(std::ref(s));
    await_handler();
    ps::Finalize(0, true); // blocks until run.py ends this process
  } else if (ps::IsScheduler()) {
    ps::Finalize(0, true);
  } else {
    work(x, full, argv[2], strcmp(argv[3], "each") == 0);
    fflush(stdout);
    _Exit(0);
  }
  return 0;
}
