// A bank of one file. As real ones do, it knows a payment by the key that comes with it: the same key twice is one payment.
import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";

export interface Bank {
  pay(key: string, to: string, eur: number): Receipt | Promise<Receipt>;
}

interface Receipt {
  paid: number;
  to: string;
}

export function fileBank(path: string): Bank {
  const payments = (): { key: string; to: string; eur: number }[] =>
    existsSync(path)
      ? readFileSync(path, "utf8")
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line))
      : [];
  return {
    pay(key: string, to: string, eur: number) {
      if (!payments().some((payment) => payment.key === key)) {
        mkdirSync(dirname(path), { recursive: true });
        appendFileSync(path, `${JSON.stringify({ key, to, eur })}\n`);
      }
      return { paid: eur, to };
    },
  };
}
