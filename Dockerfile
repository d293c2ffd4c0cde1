# SPDX-License-Identifier: Apache-2.0
# An image that holds dist/ambridge.

FROM node:24-bookworm-slim AS build
RUN apt-get -qq update && apt-get install -qqy --no-install-recommends \
	bpftool clang gcc libbpf-dev libc6-dev libelf-dev make zlib1g-dev
WORKDIR /src
COPY package.json package-lock.json tsconfig.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY bpf bpf
COPY conf conf
COPY installer installer
COPY src src
RUN npm run build

# Not distroless: Node needs libstdc++, which Debian's slim image has.
FROM debian:bookworm-slim
COPY --from=build /src/dist/ambridge /usr/local/bin/ambridge
ENTRYPOINT ["/usr/local/bin/ambridge"]
