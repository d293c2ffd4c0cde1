# SPDX-License-Identifier: Apache-2.0
# The image of conf/manifests/ambridge.yaml.

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
RUN npm run build && bash installer/image.sh /image

# Not distroless: Node needs libstdc++, which Debian's slim image has.
FROM debian:bookworm-slim
COPY --from=build /image/ /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/ambridge"]
