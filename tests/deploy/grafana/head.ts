// Put before the dashboard, as it stands, this makes the compiler check it against Grafana's own types.
import type { Dashboard } from "@grafana/schema";

// Files hold the values of string enums, not their names.
type AsWritten<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends (infer E)[]
      ? AsWritten<E>[]
      : T extends object
        ? { [K in keyof T]: AsWritten<T[K]> }
        : T;

export const dashboard: AsWritten<Dashboard> =
