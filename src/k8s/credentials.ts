// SPDX-License-Identifier: Apache-2.0
import { accessSync, constants } from 'node:fs'
import type { RequestOptions } from 'node:https'
// Not the package's main entry: it loads the client of every API there is.
import { KubeConfig } from '@kubernetes/client-node/dist/config.js'
import { RemedyError } from '../remedy.ts'
import type { Endpoint } from './explain.ts'

export interface CredentialSource {
  /** Absent: the service account of the pod. */
  readonly kubeconfig?: string
  /** Where the service account's files are looked for; the root directory unless told otherwise. */
  readonly root?: string
}

/** Which API server, and as whom. */
export class Credentials implements Endpoint {
  readonly server: string
  readonly account: string
  readonly #source: CredentialSource
  #config: KubeConfig | undefined

  private constructor(source: CredentialSource, config: KubeConfig, server: string) {
    this.#source = source
    this.#config = config
    this.server = server
    this.account = accountOf(source.kubeconfig)
  }

  /** Throws RemedyError when there are none, or none that could be used. */
  static load(source: CredentialSource): Credentials {
    const config = loadConfig(source)
    const { server = '', skipTLSVerify = false } = config.getCurrentCluster() ?? {}
    if (/^https:/.test(server) || (/^http:/.test(server) && skipTLSVerify)) {
      return new Credentials(source, config, server)
    }
    throw new RemedyError(
      `${accountOf(source.kubeconfig)} names no API server that can be trusted`,
      'its current-context must name a context, and that a cluster with an https server; http needs insecure-skip-tls-verify',
    )
  }

  /** Certificates, headers and agent of a request. A service account's token is read again once a minute. */
  async requestOptions(): Promise<RequestOptions> {
    this.#config ??= loadConfig(this.#source)
    const options: RequestOptions = {}
    await this.#config.applyToHTTPSOptions(options)
    return options
  }

  /** After a failure: what was read may have been replaced since. */
  forget(): void {
    this.#config = undefined
  }
}

function accountOf(kubeconfig: string | undefined): string {
  return kubeconfig === undefined ? 'the service account of the pod' : `kubeconfig ${kubeconfig}`
}

function loadConfig({ kubeconfig, root = '' }: CredentialSource): KubeConfig {
  const config = new KubeConfig()
  if (kubeconfig === undefined) {
    loadServiceAccount(config, root)
    return config
  }
  try {
    config.loadFromFile(kubeconfig)
  } catch (err) {
    const remedy = 'it must be a readable YAML file with clusters, users, contexts and current-context'
    throw new RemedyError(`cannot read kubeconfig ${kubeconfig}: ${(err as Error).message}`, remedy)
  }
  return config
}

function loadServiceAccount(config: KubeConfig, root: string): void {
  const remedy = 'run the agent as a pod with a service account, or give it --kubeconfig FILE'
  if (!process.env['KUBERNETES_SERVICE_HOST'] || !process.env['KUBERNETES_SERVICE_PORT']) {
    const missing = 'KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set'
    throw new RemedyError(`this is no pod: ${missing}`, remedy)
  }
  const token = `${root}/var/run/secrets/kubernetes.io/serviceaccount/token`
  try {
    accessSync(token, constants.R_OK)
  } catch (err) {
    throw new RemedyError(`cannot read the token of the service account: ${(err as Error).message}`, remedy)
  }
  config.loadFromCluster(root)
}
