/** A caller broke the rules of this folder. What a peer sends never causes it. */
export class Rfc2217Error extends Error {
  override readonly name = 'Rfc2217Error'
}
