{{- /* The paths that NetworkPolicies leave open. The kubelet's probes come from the node, which policies do not close out. */ -}}

{{- define "artstore.ingress.management" -}}
{{- $root := index . 0 -}}
- from:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ $root.Values.networkPolicy.monitoringNamespace }}}
  ports: [{port: {{ index . 1 }}, protocol: TCP}]
{{- end }}

{{- define "artstore.ingress.clients" -}}
{{- $root := index . 0 -}}{{- $key := index . 1 -}}
- from:
    # The Query module asks the Admin module, and a rebuild the Query API.
    - podSelector:
        matchLabels:
          app.kubernetes.io/instance: {{ $root.Release.Name }}
          app.kubernetes.io/part-of: query
    {{- if (index $root.Values $key).ingress.enabled }}
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ $root.Values.networkPolicy.ingressNamespace }}}
    {{- end }}
    {{- with $root.Values.networkPolicy.clients }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports: [{port: {{ index . 2 }}, protocol: TCP}]
{{- end }}

{{- define "artstore.egress.rule" -}}
- ports:
    {{- range .ports }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
  {{- with .to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "artstore.egress.own" -}}
{{- $root := index . 0 -}}
- ports: [{port: {{ index . 2 }}, protocol: TCP}]
  to:
    - podSelector:
        matchLabels:
          app.kubernetes.io/instance: {{ $root.Release.Name }}
          app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Ports of URLs and host:port pairs, each once, as YAML. */ -}}
{{- define "artstore.ports" -}}
{{- $ports := list -}}
{{- range . -}}
{{- $end := splitList "/" (regexReplaceAll "^[a-z]+://" . "") | first -}}
{{- if regexMatch ":[0-9]+$" $end -}}{{- $ports = append $ports (regexFind "[0-9]+$" $end) -}}
{{- else if hasPrefix "https://" . -}}{{- $ports = append $ports "443" -}}
{{- else if hasPrefix "http://" . -}}{{- $ports = append $ports "80" -}}
{{- end -}}
{{- end -}}
ports: {{ uniq $ports | toJson }}
{{- end }}

{{- define "artstore.egress" -}}
{{- $policy := .root.Values.networkPolicy -}}
{{- $dev := .root.Values.dev.enabled -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
  to:
    - namespaceSelector: {}
      podSelector:
        matchLabels: {k8s-app: kube-dns}
{{- if .urls }}
{{- if $dev }}
{{ include "artstore.egress.own" (list .root "postgres" 5432) }}
{{- else }}
{{ include "artstore.egress.rule" $policy.postgres }}
{{- end }}
{{- end }}
{{- if .kafkaUser }}
{{- if $dev }}
{{ include "artstore.egress.own" (list .root "kafka" 9092) }}
{{- else }}
{{- $ports := $policy.kafka.ports | default (include "artstore.ports" (splitList "," .root.Values.kafka.bootstrapServers) | fromYaml).ports }}
{{ include "artstore.egress.rule" (dict "to" $policy.kafka.to "ports" $ports) }}
{{- end }}
{{- end }}
{{- if eq .name "admin-api" }}
{{- if not (include "artstore.storage.folder" .root) }}
{{ include "artstore.egress.rule" $policy.storage }}
{{- end }}
{{- end }}
{{- if or .auth .admin (and .kafkaUser (eq .root.Values.kafka.saslMechanism "OAUTHBEARER")) }}
{{- if not (include "artstore.devKey" .root) }}
{{- $urls := list }}
{{- with .root.Values }}
{{- if not .auth.keyFile.existingSecret }}{{- $urls = append $urls .auth.issuer }}{{- end }}
{{- $urls = concat $urls (list .auth.jwksUrl .auth.client.tokenUrl .kafka.oauth.tokenUrl) }}
{{- end }}
{{- with $policy.identity.ports | default (include "artstore.ports" $urls | fromYaml).ports }}
{{ include "artstore.egress.rule" (dict "to" $policy.identity.to "ports" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if .admin }}
{{ include "artstore.egress.own" (list .root "admin-api" 8010) }}
{{- end }}
{{- if eq .name "rebuild" }}
{{ include "artstore.egress.own" (list .root "query-api" 8030) }}
{{- end }}
{{- $others := list .root.Values.tracing.endpoint (ternary .root.Values.kafka.schemaRegistryUrl "" (eq true .readsTopic)) }}
{{- with (include "artstore.ports" $others | fromYaml).ports }}
{{ include "artstore.egress.rule" (dict "ports" .) }}
{{- end }}
{{- with $policy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
