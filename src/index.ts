/** The public names, listed by hand. Stores and the testing kit have entry points of their own. */

// Workflows
export { defineWorkflow, node, type } from "./kernel/workflow.ts";
export type { Edge, Migration, NodeContext, NodeHandler, NodeObject, Workflow, WorkflowOptions } from "./kernel/workflow.ts";

// Plans
export { all, any, type AllOptions, type Settled } from "./kernel/group-plans.ts";
export { complete, fail, goto } from "./kernel/plan.ts";
export { fanOut, join, subworkflow, type FanOut, type FannedOut, type Joined, type QueueOptions } from "./kernel/child-plans.ts";
export {
  askUser,
  sleep,
  waitEvent,
  waitUntil,
  type AwaitedEvent,
  type Duration,
  type Question,
  type Ready,
} from "./kernel/wait-plans.ts";
export type { Effect, Failure, PlanOptions, ShownError, StepPlan, WaitPlanOptions } from "./kernel/plan.ts";
// EmptyOutput and Write have no use of their own: the declarations of whoever exports a workflow or a plan name them.
export type { EffectRequest, EmptyOutput, Plan, Requested, Write } from "./kernel/typing.ts";

// Schemas, as data
export { jsonSchemaOf } from "./kernel/answer-schema.ts";
export type { AnswerSchema, JsonSchema, SchemaResult } from "./kernel/answer-schema.ts";
export { schemaProblem } from "./runtime/schema-problem.ts";

// Effects
export { overBudget } from "./kernel/budget.ts";
export type { Budget, BudgetUse, OverBudget, ScopedBudget } from "./kernel/budget.ts";
export type { Spend } from "./kernel/spend.ts";
export { declareEffect, defineEffect, definite, permanent } from "./kernel/effect.ts";
export { isWaitRequest, wait } from "./kernel/wait-request.ts";
export type {
  AnyEffect,
  DefinedEffect,
  EffectContext,
  EffectOptions,
  EffectRun,
  Logger,
  OnUncertain,
  StreamPart,
} from "./kernel/effect.ts";
export type { WaitOptions, WaitRequest } from "./kernel/wait-request.ts";
export type { Backoff, PolicyOptions } from "./kernel/policy.ts";

// Running
export { createRuntime } from "./runtime/runtime.ts";
export type { RuntimeOptions, StartOptions } from "./runtime/options.ts";
export type { RunOf, Runtime } from "./runtime/runtime.ts";
export type { ScheduleOptions } from "./runtime/schedules/spec.ts";
export type { ScheduleSpec } from "./runtime/schedules/workflow.ts";
export type { Schedule, Schedules } from "./runtime/schedules/schedules.ts";
export type { SchedulerOptions } from "./runtime/scheduler.ts";
export type { ArchivedLedger } from "./runtime/moving/archive-ledger.ts";
export type { Exported } from "./runtime/moving/export-runs.ts";
export type { Imported } from "./runtime/moving/import-runs.ts";
export { type Moved, type MoveOptions, moveRuns, undoMove } from "./runtime/moving/move.ts";
export type { Purged, PurgeQuery } from "./runtime/moving/retention.ts";
export type { RuntimeEvents, RuntimeProblem } from "./runtime/events.ts";
export type { Counters, Health } from "./runtime/health.ts";
export type { CheckReport, Incompatibility } from "./runtime/check.ts";
export type { DiffWait, PointInRun, RunDiff } from "./runtime/time-travel/diff.ts";
export type { ForkOptions } from "./runtime/time-travel/fork.ts";
export type { RunPoint } from "./runtime/time-travel/moments.ts";
export type { Replay, ReplayEffects, ReplayEnd, ReplayHandler, ReplayOptions } from "./runtime/time-travel/replay.ts";
export type { Came, ReplayDifference } from "./runtime/time-travel/replay-difference.ts";
export type { Snapshot, SnapshotOptions, Snapshots } from "./runtime/time-travel/snapshots.ts";
export type { RunTree } from "./runtime/tree.ts";
export type { Verification } from "./runtime/verify.ts";
export type { Run } from "./runtime/view.ts";
export type { Cursor, WatchItem } from "./runtime/watch.ts";

// Runs and their ledgers
export type { OpenWait, RunRow, RunStatus, WaitAnswer, WaitReason, WaitState } from "./kernel/run.ts";
export type { Header, LedgerRecord, RecordKind, StoredRecord } from "./kernel/record.ts";
export { parseJson, toJson } from "./kernel/json.ts";
export type { Json, JsonObject } from "./kernel/json.ts";
export type { Patch, PatchOperation } from "./kernel/patch.ts";
export type { Limits } from "./kernel/execute.ts";
export type { Activity, Ending, Instrument, StoreState, Traced, TracedRun, TraceHeaders } from "./kernel/instrument.ts";
export type { Clock, Ids, Timer } from "./kernel/clock.ts";

// Artifacts
export { artifactRef, getArtifactId, isArtifactRef } from "./kernel/artifact.ts";
export type {
  ArtifactAccess,
  ArtifactContent,
  ArtifactMetadata,
  ArtifactRef,
  OpenArtifact,
  PutOptions,
} from "./kernel/artifact.ts";
export type { Artifacts, LoadedArtifact } from "./artifacts/artifacts.ts";
export type { Swept } from "./artifacts/sweep.ts";
export type { ArtifactQuery, ArtifactRow, BlobStore } from "./kernel/artifact-row.ts";

// Stores
export type { Blocked, Capability, CounterChange, Lease, Loaded, NewRun, QueueLimits, Transition } from "./kernel/transition.ts";
export type { CountBy, ListedRun, RunCount, RunPage, RunQuery, Scalar } from "./kernel/query.ts";
export type { Moving, RunCopy, Tombstone } from "./kernel/moving.ts";
export type { SnapshotQuery, SnapshotRow } from "./kernel/snapshot.ts";
export type { Store, StoreStats } from "./kernel/store.ts";
export type { StreamChunk, StreamFrom, StreamPlace } from "./kernel/stream.ts";
export type { Checkpoint } from "./kernel/checkpoint.ts";
export type { Delivery, Letter, Mail, Message, MessageKind } from "./kernel/message.ts";

// Actors
export { ActorFingerprint } from "./python/fingerprint.ts";
export type { ActorOptions } from "./python/fingerprint.ts";

// Errors
export { AbstractRuntimeError, isError } from "./kernel/errors.ts";
export { nearest } from "./kernel/nearest.ts";
export type { ErrorCode, ErrorData, ErrorFields } from "./kernel/errors.ts";
