// What clients may do to one another's say without changing what they mean: where a scale stands,
// in which order updates arrive, how many names one client's data has.

#include "aggregator/spooled_updates.h"
#include "aggregator/strategies/state_block.h"
#include "common/codec/precision.h"
#include "tests/properties/random_round.h"

namespace weft::testing {
namespace {

TEST(ScaleProperty, AlphaAndBTogetherChangeNothing) {
  CheckProperty(
      [] {
        const StrategySettings settings = DrawStrategy();
        RC_TAG(settings.name);
        const RandomRound round = DrawRound(settings);
        const MergedRound plain = Merged(round, round.clients);
        std::vector<MemoryClient> clients = round.clients;
        for (MemoryClient& client : clients) {
          const auto factor = static_cast<double>(Draw("factor", 1, 1000));
          client.plan.adapter.alpha *= factor;
          for (LowRank& factors : client.factors)
            factors.B_OR = factors.B_OR.to(at::kDouble) / factor;
        }
        // What clients are sent is written in their scale: the state is the same, B is not.
        RC_ASSERT(Distance(Merged(round, clients).global.adapter, plain.global.adapter) <
                  kPublished);
      },
      kManyCases);
}

TEST(ClientsProperty, SplittingOneInTwoChangesNothing) {
  CheckProperty(
      [] {
        StrategySettings settings =
            DrawStrategy([](const StrategyTraits& traits) { return traits.weights_by_size; });
        settings.slots = "top";  // drawn ones are each client's own
        RC_TAG(settings.name);
        const RandomRound round = DrawRound(settings);
        const MergedRound plain = Merged(round, round.clients);
        std::vector<MemoryClient> clients = round.clients;
        const auto last = static_cast<int64_t>(clients.size()) - 1;
        MemoryClient& divided = clients[static_cast<size_t>(Draw("divided", 0, last))];
        divided.weight /= 2;
        MemoryClient twin = divided;
        twin.plan.client.name = "twin";
        clients.push_back(std::move(twin));
        RC_ASSERT(Distance(Merged(round, clients).global.adapter, plain.global.adapter) <
                  kPublished);
      },
      kManyCases);
}

// One update as it lies in the spool.
ReceivedUpdate Sent(const RandomRound& round, const MemoryClient& client) {
  AdapterState state;
  state.spec = client.plan.adapter;
  for (size_t i = 0; i < round.sites.size(); ++i) {
    state.sites.push_back(
        {round.sites[i], {{"A", client.factors[i].A_RI}, {"B", client.factors[i].B_OR}}});
  }
  ReceivedUpdate update{{}, client.plan, *EncodeBundle({state, std::nullopt}, Float32Codec())};
  update.header = HonestHeader(client.plan, update.payload);
  update.header.num_examples = static_cast<uint64_t>(client.weight);
  return update;
}

Blob StateAfter(const RandomRound& round, std::vector<ReceivedUpdate> arrived) {
  const auto updates = SpooledUpdates::Open(std::move(arrived), round.sites, "examples", 0);
  WEFT_CHECK(updates.ok(), updates.status());
  Result<EncodedState> state = EncodeState(Merged(round, **updates).global);
  WEFT_CHECK(state.ok(), state.status());
  return std::move(state->bytes);
}

TEST(ClientsProperty, OrderOfArrivalChangesNoBit) {
  CheckProperty(
      [] {
        StrategySettings settings = DrawStrategy();
        RC_TAG(settings.name);
        if ((*FindStrategy(settings.name))->traits().any_weights) settings.robust = DrawRobust();
        const RandomRound round = DrawRound(settings, {.clients_min = 2});
        std::vector<ReceivedUpdate> received;
        for (const MemoryClient& client : round.clients) received.push_back(Sent(round, client));
        RandomStream stream = RandomStream::Derive(round.seed, {"arrival"});
        std::vector<ReceivedUpdate> arrived;
        for (const size_t k : stream.Permutation(received.size())) arrived.push_back(received[k]);
        const Blob in_order = StateAfter(round, std::move(received));
        const Blob as_arrived = StateAfter(round, std::move(arrived));
        RC_ASSERT(in_order.view() == as_arrived.view());
      },
      kManyCases);
}

TEST(ClientsProperty, OneAloneIsTheGlobalAdapter) {
  CheckProperty(
      [] {
        const StrategySettings settings = DrawStrategy();
        RC_TAG(settings.name);
        const RandomRound round = DrawRound(settings, {.clients_max = 1, .rounds_before = 0});
        const MergedRound merged = Merged(round, round.clients);
        AdapterState own;
        own.spec = round.clients[0].plan.adapter;
        for (size_t i = 0; i < round.sites.size(); ++i) {
          const LowRank& factors = round.clients[0].factors[i];
          own.sites.push_back({round.sites[i], {{"A", factors.A_RI}, {"B", factors.B_OR}}});
        }
        RC_ASSERT(Distance(merged.global.adapter, own) < kPublished);
      },
      kManyCases);
}

}  // namespace
}  // namespace weft::testing
