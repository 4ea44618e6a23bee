# The image of Espalier: server, tools and example, as a user of no rights. docs/deploy.md says how to use it.
#
#   docker build -t espalier .
#   docker build -t espalier-test --target test .     with what tests/compose adds

FROM debian:bookworm-slim AS build
WORKDIR /src
# First and alone, so that a change of anything else does not install the packages again.
COPY deploy/deps.sh deploy/
RUN deploy/deps.sh build && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cmake --preset release -DESPALIER_TESTS=OFF && cmake --build build/release && \
    cmake --install build/release --strip --prefix /usr/local

FROM debian:bookworm-slim AS runtime
RUN apt-get update && \
    apt-get install -y --no-install-recommends libcyaml1 libgrpc29 libjansson4 libprotobuf-c1 libuv1 && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --system --uid 7433 --user-group --no-create-home espalier
COPY --from=build /usr/local/bin/ /usr/local/bin/
COPY --from=build /usr/local/lib/libespalier.so.0* /usr/local/lib/
COPY --from=build /usr/local/share/espalier/ /usr/local/share/espalier/
# Each program starts: no library is missing above.
RUN ldconfig && espalierd --version && espctl version && espalier-digits --version
# In figures, so that Kubernetes can see that it is not root.
USER 7433:7433
EXPOSE 7433
STOPSIGNAL SIGTERM
# Asks the server of $ESPALIER_SERVER, by default the one in this container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["espctl", "ping", "--timeout", "3s"]
# It listens on loopback, that is to this container only: what else it opens, and to whom, is for its operator to say.
CMD ["espalierd"]

# The load of tests/compose, built against the installed library.
FROM build AS test-build
RUN cmake -G Ninja -S tests/compose/pusher -B build/pusher && cmake --build build/pusher

FROM runtime AS test
COPY --from=test-build /src/build/pusher/pusher /usr/local/bin/

FROM runtime
