#pragma once
// The SetUp function of every command file, in alphabetical order; see command.h.

#include "cli/command.h"

namespace weft::cli {

Action SetUpAdapterExport(CLI::App& app);
Action SetUpAdapterImport(CLI::App& app);
Action SetUpAdapterInspect(CLI::App& app);
Action SetUpAdapterMerge(CLI::App& app);
Action SetUpLaplaceFit(CLI::App& app);
Action SetUpLaplaceFederate(CLI::App& app);
Action SetUpLaplacePredict(CLI::App& app);
Action SetUpBenchCount(CLI::App& app);
Action SetUpBenchLoad(CLI::App& app);
Action SetUpBenchMerge(CLI::App& app);
Action SetUpBenchRound(CLI::App& app);
Action SetUpBenchTrain(CLI::App& app);
Action SetUpConfigReference(CLI::App& app);
Action SetUpConfigShow(CLI::App& app);
Action SetUpEdit(CLI::App& app);
Action SetUpEval(CLI::App& app);
Action SetUpGenerate(CLI::App& app);
Action SetUpInit(CLI::App& app);
Action SetUpInitRelay(CLI::App& app);
Action SetUpKeysAllow(CLI::App& app);
Action SetUpKeysList(CLI::App& app);
Action SetUpKeysNew(CLI::App& app);
Action SetUpKeysRevoke(CLI::App& app);
Action SetUpKeysShow(CLI::App& app);
Action SetUpRunsDiff(CLI::App& app);
Action SetUpRunsExport(CLI::App& app);
Action SetUpRunsList(CLI::App& app);
Action SetUpRunsRounds(CLI::App& app);
Action SetUpRunsShow(CLI::App& app);
Action SetUpRunsRepair(CLI::App& app);
Action SetUpRunsResume(CLI::App& app);
Action SetUpRunsStop(CLI::App& app);
Action SetUpRunsTail(CLI::App& app);
Action SetUpRunsVerify(CLI::App& app);
Action SetUpTokenize(CLI::App& app);
Action SetUpTrain(CLI::App& app);
Action SetUpVersion(CLI::App& app);

}  // namespace weft::cli
