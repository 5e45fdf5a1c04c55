/** What servers may send: their messages are theirs, and this process's memory is not. */

/** Bytes of one message. */
export const largestMessage = 10 * 1024 * 1024;
/** Characters of the list of tools as JSON: it goes into prompts. */
export const largestList = 4 * 1024 * 1024;
/** Of that list: a server that never says that a page is the last one has no list. */
export const mostPages = 100;
/** Levels of nesting in what models are told of a tool: it is recorded within something else. */
export const deepestSchema = 100;
/** Characters of what a server asks a person, and of the state it gives with that: both are recorded. */
export const largestQuestion = 128 * 1024;
/** Bytes of an image, a recording or a file in a result that become an artifact when there are more. */
export const largestInlineBytes = 32 * 1024;
/** Characters of a text that becomes one. */
export const largestInlineText = 256 * 1024;
