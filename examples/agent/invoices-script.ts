// What the scripted model says when it is asked to pay the invoices in a folder: five turns, each from what the tools have answered.
import { join } from "node:path";
import type { Script } from "./scripted-model.ts";

export const payInvoices: Script = ({ user, turns, results }) => {
  const folder = /in (\S+)$/.exec(user)?.[1] ?? "";
  const [listed = "", ...rest] = results;
  const files = [...listed.matchAll(/[\w-]+\.txt/g)].map(([name]) => name);
  const [home, abroad] = rest.slice(0, files.length).map(invoiceIn);
  const [converted = "", ...paid] = rest.slice(files.length);
  const euros = Number(/"eur":\s*([\d.]+)/.exec(converted)?.[1]);
  const turn = [
    { text: "Let me see which invoices there are.", calls: [{ name: "list_directory", arguments: { path: folder } }] },
    {
      text: `There are ${files.length}. I read them.`,
      calls: files.map((name) => ({ name: "read_text_file", arguments: { path: join(folder, name) } })),
    },
    {
      text: `${abroad?.from} wants ${abroad?.total} dollars. I look up what that is in euros.`,
      calls: [{ name: "exchange", arguments: { usd: abroad?.total } }],
    },
    {
      text: `That is ${euros} EUR. Now I can pay both.`,
      calls: [
        { name: "pay", arguments: { to: home?.from, eur: home?.total } },
        { name: "pay", arguments: { to: abroad?.from, eur: euros } },
      ],
    },
    {
      text: [home, abroad]
        .map((invoice, i) => `${invoice?.from}: ${/paid/.test(paid[i] ?? "") ? "paid" : "not paid"}.`)
        .join(" "),
    },
  ];
  return turn[turns] ?? { text: "There is nothing left to do." };
};

function invoiceIn(text: string) {
  const [, from, total] = /From: ([^\n\\]+)[\s\S]*Total: ([\d.]+)/.exec(text) ?? [];
  return { from, total: Number(total) };
}
