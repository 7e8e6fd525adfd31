#include "sim/colluders.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"

namespace weft::sim {
namespace {

// The same job as if it had been asked of that client.
TrainJob JobOf(const TrainJob& job, const ClientId& client) {
  TrainJob other = job;
  other.client = client;
  other.local_state = Blob();
  for (ClientPlan& entry : other.plan.cohort) {
    if (entry.client == job.client) entry.client = client;
  }
  return other;
}

bool SameJob(const TrainJob& a, const TrainJob& b) {
  return a.client == b.client && a.bundle_sha256 == b.bundle_sha256 && a.plan == b.plan;
}

}  // namespace

Result<HonestUpdate> ReadBack(TrainJob::Output output) {
  WEFT_TRY_ASSIGN(AdapterBundle bundle, DecodeBundle(output.payload, at::kCPU));
  if (!bundle.adapter) return InvalidArgument("[attack] the update holds no adapter");
  return HonestUpdate{std::move(output), std::move(*bundle.adapter)};
}

// Work in one thread's hands; given up unless it is finished, whatever ends it.
class Colluders::Claim {
 public:
  Claim(Colluders& owner, Entry& entry) : owner_(owner), entry_(entry) {}
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  ~Claim() {
    const std::scoped_lock lock(owner_.mutex_);
    entry_.claimed = false;
    owner_.changed_.notify_all();
  }

  Status Work(JobControl& control) {
    WEFT_TRY_ASSIGN(TrainJob::Output output, owner_.honest_(entry_.job, control));
    WEFT_TRY_ASSIGN(HonestUpdate update, ReadBack(std::move(output)));
    const std::scoped_lock lock(owner_.mutex_);
    entry_.update = std::make_shared<const HonestUpdate>(std::move(update));
    entry_.job.bundle = Blob();
    ++owner_.trained_;
    return OkStatus();
  }

 private:
  Colluders& owner_;
  Entry& entry_;
};

std::vector<std::shared_ptr<Colluders::Entry>> Colluders::EntriesOf(const TrainJob& job) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(entries_,
                [&](const auto& entry) { return entry->job.plan.round < job.plan.round; });
  std::vector<std::shared_ptr<Entry>> found;
  for (const ClientId& name : names_) {
    TrainJob wanted = JobOf(job, name);
    const auto at = std::find_if(entries_.begin(), entries_.end(),
                                 [&](const auto& entry) { return SameJob(entry->job, wanted); });
    if (at != entries_.end()) {
      found.push_back(*at);
      continue;
    }
    found.push_back(std::make_shared<Entry>(Entry{.job = std::move(wanted)}));
    entries_.push_back(found.back());
  }
  return found;
}

Colluders::Entry* Colluders::Next(const std::vector<std::shared_ptr<Entry>>& entries,
                                  const ClientId& own) {
  std::unique_lock lock(mutex_);
  for (;;) {
    Entry* free = nullptr;
    bool all = true;
    for (const std::shared_ptr<Entry>& entry : entries) {
      all = all && entry->update != nullptr;
      if (entry->update != nullptr || entry->claimed) continue;
      if (free == nullptr || entry->job.client == own) free = entry.get();
    }
    if (all) return nullptr;
    if (free != nullptr) {
      free->claimed = true;
      return free;
    }
    changed_.wait(lock);
  }
}

Result<std::vector<std::shared_ptr<const HonestUpdate>>> Colluders::Updates(const TrainJob& job,
                                                                            JobControl& control) {
  const std::vector<std::shared_ptr<Entry>> entries = EntriesOf(job);
  while (Entry* entry = Next(entries, job.client)) {
    WEFT_TRY(Claim(*this, *entry).Work(control).Within(Str("[attack] ", entry->job.client)));
  }
  const std::scoped_lock lock(mutex_);
  std::vector<std::shared_ptr<const HonestUpdate>> updates;
  for (const std::shared_ptr<Entry>& entry : entries) updates.push_back(entry->update);
  return updates;
}

uint64_t Colluders::trained() const {
  const std::scoped_lock lock(mutex_);
  return trained_;
}

}  // namespace weft::sim
