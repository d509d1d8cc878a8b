// The in-browser explorer: GraphiQL over this gateway's own addresses. Everything it loads lies beside this file.
"use strict";

const path = location.pathname.replace(/\/$/, "");
const http = GraphiQL.createFetcher({ url: path });
const socketUrl = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;

const authorizationOf = (headers) => {
  const name = Object.keys(headers ?? {}).find((key) => key.toLowerCase() === "authorization");
  return name ? headers[name] : undefined;
};

const isSubscription = (document, operationName) =>
  (document?.definitions ?? []).some(
    (d) => d.kind === "OperationDefinition" && d.operation === "subscription" && (!operationName || d.name?.value === operationName),
  );

// One socket per subscription: each tab may have a credential of its own.
const subscribe = (request, headers) => {
  const client = graphqlWs.createClient({
    url: socketUrl,
    lazy: true,
    retryAttempts: 3,
    connectionParams: () => {
      const authorization = authorizationOf(headers);
      return authorization ? { authorization } : {};
    },
  });
  return client.iterate(request);
};

const fetcher = (request, options) =>
  isSubscription(options?.documentAST, request.operationName) ? subscribe(request, options?.headers) : http(request, options);

const HEADERS = JSON.stringify({ Authorization: "Bearer PASTE_THE_TOKEN_HERE" }, null, 2);
const tab = (query, variables) => ({
  query: query.trim(),
  variables: variables ? JSON.stringify(variables, null, 2) : "",
  headers: HEADERS,
});

const EXAMPLES = [
  tab(`
# Who am I? Tokens go below, under "Headers".
# 1. With the operator's token (printed by fw up),
#    make a tenant. Its apiToken is shown once:
#    use it in the other tabs.
query Me {
  viewer { kind tenant { id name } }
}

mutation CreateTenant {
  createTenant(
    input: { name: "Lighthouse TV", clientMutationId: "lighthouse" }
  ) {
    __typename
    ... on CreateTenantSuccess {
      tenant { id name }
      apiToken
      position
    }
    ... on Error { code message }
  }
}
`),
  tab(`
# 2. With the tenant's token, make a stream.
#    The streamKey is shown once: publish with it.
mutation CreateStream {
  createStream(
    input: { title: "Harbour view", clientMutationId: "harbour-1" }
  ) {
    __typename
    ... on CreateStreamSuccess {
      stream { id title slug playbackId internalName state }
      streamKey
      position
    }
    ... on ValidationError { code message field }
    ... on Error { code message }
    ... on PendingResult { commandId message }
  }
}

mutation RotateStreamKey($id: ID!) {
  rotateStreamKey(input: { streamId: $id, graceSeconds: 300 }) {
    ... on RotateStreamKeySuccess { streamKey position }
    ... on Error { code message }
  }
}
`, { id: "PASTE_A_STREAM_ID" }),
  tab(`
# Your streams, newest first.
query Streams($state: StreamState) {
  streams(first: 20, state: $state) {
    totalCount
    pageInfo { hasNextPage endCursor }
    edges {
      cursor
      node { id title slug state isLive playbackId viewers { now peak total } }
    }
  }
}
`),
  tab(`
# Who watched, how long, how many bytes?
query Audience($id: ID!) {
  stream(id: $id) {
    title
    state
    viewers { now peak total }
    sessions(first: 20) {
      totalCount
      edges {
        node {
          sessionId joinedAt leftAt seconds upBytes downBytes
          connector country nodeId endReason synthesized
        }
      }
    }
    ingests(first: 10) {
      totalCount
      edges { node { id startedAt endedAt protocol endReason bytes } }
    }
    rejections(first: 10) { totalCount edges { node { at kind reason } } }
    health {
      bufferState bufferMs bitrateBps issues
      tracks { kind codec width height }
    }
  }
}
`, { id: "PASTE_A_STREAM_ID" }),
  tab(`
# Who may watch? Needs a token from now on; and what a viewer
# without one would be told, by the rules of the media servers.
mutation OnlyWithTokens($id: ID!) {
  setPlaybackPolicy(input: { streamId: $id, kind: JWT, maxViewers: 1000 }) {
    __typename
    ... on SetPlaybackPolicySuccess { stream { id } position }
    ... on Error { code message }
  }
}

query WouldBeTold($id: ID!, $country: String, $token: String) {
  playbackDecision(streamId: $id, country: $country, token: $token) {
    allowed reason message policyVersion
  }
}
`, { id: "PASTE_A_STREAM_ID", country: "NL", token: null }),
  tab(`
# Where to watch: the node that serves you best, and why.
# Tokens are not needed.
query Where($playbackId: String!) {
  resolveViewerEndpoint(playbackId: $playbackId, latitude: 52.4, longitude: 4.9) {
    url
    node { nodeName region score { total cpu ram bandwidth geo bonus } }
    alternatives { nodeName score { total } }
    excluded { nodeId reason }
  }
}

# With the operator's token, or of your own nodes with yours.
query Nodes {
  nodes(first: 20) {
    nodes { id region mode enrolment certificateUntil }
  }
}
`, { playbackId: "PASTE_A_PLAYBACK_ID" }),
  tab(`
# The past: a stream as it was, and who changed what.
# Take a time from "appendedAt".
query AsOf($id: ID!, $then: DateTime!) {
  stream(id: $id, asOf: $then) { title slug state keyPrefix }
  streams(asOf: $then, first: 20) { totalCount nodes { id title state } }
}

query History($id: ID) {
  history(id: $id, first: 20) {
    totalCount
    nodes {
      type version appendedAt
      actor { kind name tokenPrefix }
      changes { field before after }
      refusal { command code message }
      commandId correlationId position
    }
  }
}
`, { id: "PASTE_A_STREAM_ID", then: "2026-01-01T00:00:00Z" }),
  tab(`
# How many watched at a moment, as it was known then,
# and which facts say so. Paste a token into "Explain".
query AsKnownAt($id: ID!, $at: DateTime, $knownAt: DateTime) {
  stream(id: $id) {
    viewers(at: $at, knownAt: $knownAt) {
      now peak total unique viewerSeconds upBytes
      explain(number: VIEWER_SECONDS)
    }
    ingestTotals(at: $at, knownAt: $knownAt) {
      count seconds bytes explain(number: BYTES)
    }
    sessions(first: 5, at: $at, knownAt: $knownAt) {
      nodes { sessionId seconds explain(number: SECONDS) }
    }
  }
}

query Explain($token: String!) {
  explain(token: $token, first: 50) {
    number value at knownAt totalCount
    pageInfo { hasNextPage endCursor }
    nodes {
      type share topic partition offset
      occurredAt appendedAt eventId subjectId
    }
  }
}
`, { id: "PASTE_A_STREAM_ID", at: null, knownAt: null, token: "PASTE_AN_EXPLAIN_TOKEN" }),
  tab(`
# What happens to a stream, as it happens. Continue
# behind the last cursor that you saw with "after".
subscription StreamEvents($id: ID!, $after: Cursor) {
  streamEvents(streamId: $id, after: $after) {
    __typename
    cursor
    eventId
    occurredAt
    ... on StreamSnapshot { state viewersNow }
    ... on IngestStarted { protocol nodeId }
    ... on IngestEnded { protocol endReason seconds receivedBytes }
    ... on BufferChanged { bufferState bufferMs }
    ... on ViewerJoined { sessionId connector country }
    ... on ViewerLeft { sessionId seconds upBytes downBytes }
    ... on StreamTotals { viewers viewerSeconds upBytes }
    ... on EventsSkipped { skipReason resumeFrom }
  }
}
`, { id: "PASTE_A_STREAM_ID" }),
];

ReactDOM.createRoot(document.getElementById("explorer")).render(
  React.createElement(GraphiQL, {
    fetcher,
    defaultTabs: EXAMPLES,
    defaultHeaders: HEADERS,
    defaultEditorToolsVisibility: "headers",
    shouldPersistHeaders: false,
  }),
);
