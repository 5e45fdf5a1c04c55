/**
 * Numbers as Python spells them. Python keeps whole numbers (of any size) and floats apart, and its ledgers are hashed over the
 * spelling: `1.0` is not `1`.
 */

/** Python 3.11 refuses to read whole numbers of more digits. */
const mostDigits = 4_300;

/**
 * The text that Python prints after reading `lexeme`. What Python wrote stays as it is; `1E5`, which it never writes, becomes `100000.0`.
 *
 * @throws RangeError for a whole number that Python refuses to read.
 */
export function respell(lexeme: string): string {
  if (/[.eE]/.test(lexeme)) return floatText(Number(lexeme));
  const digits = lexeme.replace("-", "").length;
  if (digits > mostDigits) throw new RangeError(`a whole number of ${digits} digits, which Python refuses to read`);
  return lexeme === "-0" ? "0" : lexeme;
}

/** A JavaScript number. It does not tell 1 from 1.0: whole numbers up to 2^53 count as integers. */
export function numberText(value: number | bigint): string {
  if (typeof value === "bigint" || (Number.isSafeInteger(value) && !Object.is(value, -0))) return String(value);
  return floatText(value);
}

/** The shortest digits that read back as the same number, which both languages print, in Python's form. */
function floatText(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return Object.is(value, -0) ? "-0.0" : "0.0";
  const [mantissa = "", exponentText = ""] = value.toExponential().split("e");
  const exponent = Number(exponentText);
  const sign = value < 0 ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    return `${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const digits = mantissa.replace(/[-.]/g, "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}
