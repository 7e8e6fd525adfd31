#pragma once
// Executor: the seam through which a node has long work done. Work is plain data (a TrainJob, a
// MergeJob), never a closure: the executor looks up the function registered for the job's type, so
// an executor may queue, batch or replay jobs.
//
//   struct MergeJob { using Output = MergeResult; … };
//   table.On<MergeJob>([](const MergeJob& job, JobControl& control) -> Result<MergeResult> {…}); //
//   at assembly Submit(env.executor, MergeJob{…}, cost, control, [this](Result<MergeResult> result)
//   {…});         // in the node

#include <any>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <typeindex>

#include "common/base/result.h"
#include "common/runtime/clock.h"

namespace weft {

/// Shared between a node and the work it asked for; the only state both touch.
struct JobControl {
  std::atomic<bool> cancelled{false};  // set by the node; long work looks at it between steps
  std::atomic<float> progress{0};      // 0 … 1, set by the work, reported in heartbeats
};

template <typename J>
concept JobType = requires {
  typename J::Output;
}
&&std::copy_constructible<J>;

/// The functions that do the work, one per job type; built where main() can see it, read-only
/// afterwards.
class WorkTable {
 public:
  using Function = std::function<std::any(const std::any& job, JobControl& control)>;

  template <JobType J>
  void On(std::function<Result<typename J::Output>(const J&, JobControl&)> work) {
    functions_[std::type_index(typeid(J))] = [work = std::move(work)](const std::any& job,
                                                                      JobControl& control) {
      return std::any(work(*std::any_cast<J>(&job), control));
    };
  }

  /// Runs the job on the calling thread. A job type that was never registered is a bug.
  [[nodiscard]] std::any Run(const std::any& job, JobControl& control) const {
    const auto it = functions_.find(std::type_index(job.type()));
    WEFT_CHECK(it != functions_.end(), "no work registered for ", job.type().name());
    return it->second(job, control);
  }

 private:
  std::map<std::type_index, Function> functions_;
};

class Executor {
 public:
  virtual ~Executor() = default;

  /// Runs the job elsewhere and calls `done` in the node's loop, once. `modelled_cost` is the time
  /// the work is taken to need in simulation; production ignores it. Use the typed Submit below.
  virtual void SubmitAny(std::any job, Nanos modelled_cost, std::shared_ptr<JobControl> control,
                         std::function<void(std::any)> done) = 0;
};

template <JobType J>
void Submit(Executor& executor, J job, Nanos modelled_cost, std::shared_ptr<JobControl> control,
            std::function<void(Result<typename J::Output>)> done) {
  executor.SubmitAny(std::any(std::move(job)), modelled_cost, std::move(control),
                     [done = std::move(done)](std::any result) {
                       done(std::move(*std::any_cast<Result<typename J::Output>>(&result)));
                     });
}

}  // namespace weft
