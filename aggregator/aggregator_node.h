#pragma once
// AggregatorNode: one run, from its first member to its last round, as a single-threaded state
// machine: who talks to the members, whichever course (course.h) the run takes. The ledger and the
// blobs in the store are its only memory: started on what a killed one left, it goes on with the
// run and ends with the same adapter.
//
//   gather members → initial adapter → evaluate version 0 → { open round → merge → publish →
//   evaluate } … → end
//
// Parts: Members (who is here), RoundRunner (one round), EvaluationRunner (one version), Uploads
// and Downloads (payloads). Owned by whoever built the Env; all calls come from its loop.

#include <functional>
#include <memory>

#include "aggregator/options.h"
#include "common/base/ids.h"
#include "common/runtime/env.h"

namespace weft {

class Course;
class Office;

class AggregatorNode : public Node {
 public:
  /// A run of its own.
  AggregatorNode(Env env, AggregatorOptions options);
  /// Another course of steps, which the node owns.
  using MakeCourse = std::function<std::unique_ptr<Course>(Office& office)>;
  AggregatorNode(Env env, AggregatorOptions options, const MakeCourse& make_course);
  ~AggregatorNode() override;
  AggregatorNode(const AggregatorNode&) = delete;
  AggregatorNode& operator=(const AggregatorNode&) = delete;

  [[nodiscard]] Status Start() override;
  void Stop(const Status& why) override;
  [[nodiscard]] bool Finished() const override;
  [[nodiscard]] Status Outcome() const override;

  void OnFrames(const ClientId& from, Frames frames) override;
  void OnPeerGone(const ClientId& peer, const Status& why) override;

  /// Newest published version.
  [[nodiscard]] RoundId version() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
