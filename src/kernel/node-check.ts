/** What the compiler checks of a workflow's nodes, and what it says where one does not fit. Types alone. */
import type { Anything, Plan, Write } from "./typing.ts";
import type { NodeObject } from "./workflow.ts";

export type PlanOf<Form> = Form extends (run: never) => infer Returned
  ? Awaited<Returned>
  : Form extends { run: (run: never) => infer Returned }
    ? Awaited<Returned>
    : never;

/** What a plan completes with. One of unknown type makes it unknown. */
export type CompletionOf<P> =
  P extends Plan<string, Anything, string, infer Output> ? Output : P extends { completeOutput?: infer Output } ? Output : never;

/**
 * A node's own type when it is right, otherwise that type with a sentence in the place of what is wrong. `nodes` must consist of
 * these alone (not of `Nodes & ...`): then the compiler infers `Nodes` through them, and reports at the very expression.
 */
export type NodeCheck<Form, Vars, Name extends string, Effect extends string> = [FormProblem<Form, Name>] extends [never]
  ? [PlanProblem<PlanOf<Form>, Vars, Name, Effect, TargetsOf<Form>>] extends [never]
    ? Form
    : Form extends { run: unknown }
      ? Omit<Form, "run"> & { run: (run: never) => PlanProblem<PlanOf<Form>, Vars, Name, Effect, TargetsOf<Form>> }
      : (run: never) => PlanProblem<PlanOf<Form>, Vars, Name, Effect, TargetsOf<Form>>
  : FormProblem<Form, Name>;

/** A misspelt key, or a `to` that names no node. */
type FormProblem<Form, Name extends string> = Form extends { run: unknown }
  ? [Exclude<keyof Form, keyof NodeObject<unknown>>] extends [never]
    ? Form extends { to: readonly (infer Target extends string)[] }
      ? [Missing<Target, Name>] extends [never]
        ? never
        : Omit<Form, "to"> & { to: readonly (Name | Missing<Target, Name>)[] }
      : never
    : NodeObject<Anything> & { [Key in Exclude<keyof Form, keyof NodeObject<unknown>> & string]: `A node has no '${Key}'.` }
  : never;

type TargetsOf<Form> = Form extends { to: readonly (infer Target)[] } ? Target : string;

/** A sentence for everything wrong with a plan; never when it is right. Distributes over a union of plans. */
type PlanProblem<P, Vars, Name extends string, Effect extends string, Target> =
  P extends Plan<infer Next, infer Writes, infer Used, Anything>
    ? Missing<Next, Name> | Strayed<Next, Name, Target> | Undeclared<Used, Effect> | WriteProblem<Writes, Vars>
    : P extends { nextNode: infer Next extends string }
      ? Missing<Next, Name> | Strayed<Next, Name, Target>
      : never;

type Missing<Next extends string, Name extends string> = string extends Next
  ? never
  : Next extends Name
    ? never
    : `This workflow has no node '${Next}'.`;

type Strayed<Next extends string, Name extends string, Target> = string extends Next
  ? never
  : Next extends Name
    ? Next extends Target
      ? never
      : `Node '${Next}' is not in the 'to' of this node.`
    : never;

type Undeclared<Used extends string, Effect extends string> = string extends Used
  ? never
  : Used extends Effect
    ? never
    : `Effect '${Used}' is not in the 'effects' of this workflow.`;

type WriteProblem<Writes, Vars> = Writes extends Write<infer Key, infer Result> ? KeyProblem<Key, Result, Vars> : never;

type KeyProblem<Key extends string, Result, Vars> = string extends Key
  ? never
  : Key extends string
    ? MemberAt<Vars, Key> extends infer Member
      ? [Result] extends [Member | Unchanging<Member>]
        ? never
        : [Member] extends [NoMember]
          ? `resultKey '${Key}' is not in the vars.`
          : // Not by a name: written out, the message shows the types that do not fit together.
            { error: `The result of this effect does not fit vars.${Key}.`; result: Result; expected: Exclude<Member, NoMember> }
      : never
    : never;

/** A result is copied, so lists that may not be changed fit lists that may: `complete` infers such ones. */
type Unchanging<T> = T extends object ? { readonly [Key in keyof T]: Unchanging<T[Key]> } : T;

declare const noMember: unique symbol;

type NoMember = typeof noMember;

/** What stands at a dotted key. Parents may be optional: objects are made on the way. */
type MemberAt<T, Key> = 0 extends 1 & T
  ? T
  : Key extends `${infer Head}.${infer Rest}`
    ? MemberAt<PropertyAt<NonNullable<T>, Head>, Rest>
    : PropertyAt<T, Key>;

type PropertyAt<T, Key> = T extends readonly unknown[]
  ? NoMember
  : T extends object
    ? Key extends keyof T
      ? T[Key]
      : NoMember
    : NoMember;
