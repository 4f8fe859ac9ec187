{{- /* The environment of the processes, and their secrets: files named as settings, in SECRETS_DIR. */ -}}

{{- define "artstore.env" -}}
- name: LOG_LEVEL
  value: {{ .root.Values.logLevel }}
- name: LOG_FORMAT
  value: {{ .root.Values.logFormat }}
- name: MANAGEMENT_HOST
  value: "0.0.0.0"
{{- if trim (include "artstore.sources.secrets" .) }}
- name: SECRETS_DIR
  value: /etc/artstore/secrets
{{- end }}
{{- with .root.Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $.root.Values.tracing.sampleRatio | quote }}
{{- end }}
{{- end }}

{{- define "artstore.env.more" -}}
{{- range $name, $value := .settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "artstore.env.kafka" -}}
{{- $kafka := .root.Values.kafka -}}
- name: KAFKA_BOOTSTRAP_SERVERS
  value: {{ include "artstore.kafka.servers" .root | quote }}
- name: FILE_EVENTS_TOPIC
  value: {{ $kafka.topic }}
{{- if ne $kafka.securityProtocol "PLAINTEXT" }}
- name: KAFKA_SECURITY_PROTOCOL
  value: {{ $kafka.securityProtocol }}
{{- end }}
{{- if hasSuffix "SSL" $kafka.securityProtocol }}
{{- if include "artstore.kafka.ca" .root }}
- name: KAFKA_SSL_CA_FILE
  value: /etc/artstore/certificates/kafka/ca.crt
{{- end }}
{{- end }}
{{- if eq $kafka.securityProtocol "SSL" }}
{{- if include "artstore.kafka.userSecret" . }}
- name: KAFKA_SSL_CERTIFICATE_FILE
  value: /etc/artstore/certificates/kafka/user.crt
- name: KAFKA_SSL_KEY_FILE
  value: /etc/artstore/certificates/kafka/user.key
{{- end }}
{{- end }}
{{- if hasPrefix "SASL" $kafka.securityProtocol }}
- name: KAFKA_SASL_MECHANISM
  value: {{ $kafka.saslMechanism }}
{{- if eq $kafka.saslMechanism "OAUTHBEARER" }}
- name: KAFKA_OAUTH_TOKEN_URL
  value: {{ $kafka.oauth.tokenUrl }}
- name: KAFKA_OAUTH_CLIENT_ID
  value: {{ include "artstore.kafka.username" . | quote }}
{{- with $kafka.oauth.scope }}
- name: KAFKA_OAUTH_SCOPE
  value: {{ . | quote }}
{{- end }}
{{- else }}
- name: KAFKA_SASL_USERNAME
  value: {{ include "artstore.kafka.username" . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "artstore.env.schemaRegistry" -}}
{{- with .Values.kafka.schemaRegistryUrl }}
- name: SCHEMA_REGISTRY_URL
  value: {{ . }}
{{- end }}
{{- end }}

{{- define "artstore.kafka.ca" -}}
{{- with .Values -}}
{{- .kafka.ca.existingSecret | default (ternary (printf "%s-cluster-ca-cert" .strimzi.cluster) "" .strimzi.enabled) -}}
{{- end -}}
{{- end }}

{{- /* Who a component is at the broker: as its values say, or else its KafkaUser. */ -}}
{{- define "artstore.kafka.userSecret" -}}
{{- (index .root.Values.kafka.users .kafkaUser).existingSecret | default (include "artstore.kafka.strimziUser" .) -}}
{{- end }}

{{- define "artstore.kafka.username" -}}
{{- (index .root.Values.kafka.users .kafkaUser).username | default (include "artstore.kafka.strimziUser" .) -}}
{{- end }}

{{- define "artstore.kafka.strimziUser" -}}
{{- if .root.Values.strimzi.enabled -}}{{ include "artstore.fullname" .root }}-{{ .kafkaUser | kebabcase }}{{- end -}}
{{- end }}

{{- /* A process that clients ask, and that asks them for tokens. */ -}}
{{- define "artstore.env.auth" -}}
{{- with .Values.auth -}}
- name: AUTH_MODE
  value: jwt
- name: AUTH_ISSUER
  value: {{ include "artstore.issuer" $ | quote }}
- name: AUTH_AUDIENCE
  value: {{ .audience | quote }}
{{- with .jwksUrl }}
- name: AUTH_JWKS_URL
  value: {{ . }}
{{- end }}
{{- if include "artstore.keySecret" $ }}
- name: AUTH_KEY_FILE
  value: /etc/artstore/certificates/issuer/key
{{- end }}
{{- if not (kindIs "invalid" .leewaySeconds) }}
- name: AUTH_LEEWAY_SECONDS
  value: {{ .leewaySeconds | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "artstore.issuer" -}}
{{- .Values.auth.issuer | default (ternary (printf "https://%s.dev.invalid" (include "artstore.fullname" .)) "" .Values.dev.enabled) -}}
{{- end }}

{{- /* dev mode without an issuer of its own has a key of its own. */ -}}
{{- define "artstore.devKey" -}}
{{- if and .Values.dev.enabled (not .Values.auth.issuer) -}}true{{- end -}}
{{- end }}

{{- define "artstore.keySecret" -}}
{{- if include "artstore.devKey" . -}}{{ include "artstore.fullname" . }}-dev-key
{{- else -}}{{ .Values.auth.keyFile.existingSecret }}{{- end -}}
{{- end }}

{{- /* How the Query module asks the Admin module. */ -}}
{{- define "artstore.env.admin" -}}
- name: ADMIN_API_URL
  value: http://{{ include "artstore.fullname" . }}-admin-api:8010
{{- if include "artstore.devKey" . }}
- name: AUTH_TOKEN_FILE
  value: /run/artstore/token
{{- end }}
{{- with .Values.auth.client }}
{{- if .tokenUrl }}
- name: AUTH_TOKEN_URL
  value: {{ .tokenUrl }}
- name: AUTH_CLIENT_ID
  value: {{ .id | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Secrets of a pod: see artstore.component. */ -}}
{{- define "artstore.sources.secrets" -}}
{{- range .urls }}
- secret:
    name: {{ .secret }}
    items: [{key: {{ .key }}, path: {{ .file }}}]
{{- end }}
{{- if .kafkaUser }}
{{- $kafka := .root.Values.kafka }}
{{- if hasPrefix "SASL" $kafka.securityProtocol }}
- secret:
    name: {{ include "artstore.kafka.userSecret" . }}
    {{- if eq $kafka.saslMechanism "OAUTHBEARER" }}
    items: [{key: {{ $kafka.keys.clientSecret }}, path: kafka_oauth_client_secret}]
    {{- else }}
    items: [{key: {{ $kafka.keys.password }}, path: kafka_sasl_password}]
    {{- end }}
{{- end }}
{{- end }}
{{- if and .admin .root.Values.auth.client.tokenUrl }}
- secret:
    name: {{ .root.Values.auth.client.existingSecret }}
    items: [{key: {{ .root.Values.auth.client.key }}, path: auth_client_secret}]
{{- end }}
{{- end }}

{{- /* Certificates and keys of a pod. */ -}}
{{- define "artstore.sources.certificates" -}}
{{- with .root.Values.postgres.ca }}
{{- if and .existingSecret $.urls }}
- secret:
    name: {{ .existingSecret }}
    items: [{key: {{ .key }}, path: postgres/ca.crt}]
{{- end }}
{{- end }}
{{- if .kafkaUser }}
{{- $kafka := .root.Values.kafka }}
{{- if and (hasSuffix "SSL" $kafka.securityProtocol) (include "artstore.kafka.ca" .root) }}
- secret:
    name: {{ include "artstore.kafka.ca" .root }}
    items: [{key: {{ $kafka.ca.key }}, path: kafka/ca.crt}]
{{- end }}
{{- if and (eq $kafka.securityProtocol "SSL") (include "artstore.kafka.userSecret" .) }}
- secret:
    name: {{ include "artstore.kafka.userSecret" . }}
    items:
      - {key: {{ $kafka.keys.certificate }}, path: kafka/user.crt}
      - {key: {{ $kafka.keys.privateKey }}, path: kafka/user.key}
{{- end }}
{{- end }}
{{- if and .auth (include "artstore.keySecret" .root) }}
- secret:
    name: {{ include "artstore.keySecret" .root }}
    items: [{key: {{ ternary "tls.crt" .root.Values.auth.keyFile.key (eq (include "artstore.devKey" .root) "true") }}, path: issuer/key}]
{{- end }}
{{- end }}

{{- define "artstore.volumes" -}}
{{- range $volume, $sources := dict "secrets" (include "artstore.sources.secrets" .) "certificates" (include "artstore.sources.certificates" .) }}
{{- if trim $sources }}
- name: {{ $volume }}
  projected:
    defaultMode: 0440
    sources: {{- $sources | trim | nindent 6 }}
{{- end }}
{{- end }}
{{- if and .admin (include "artstore.devKey" .root) }}
- name: token
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: key
  secret: {secretName: {{ include "artstore.keySecret" .root }}, defaultMode: 0440, items: [{key: tls.key, path: tls.key}]}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- end }}

{{- define "artstore.mounts" -}}
{{- if trim (include "artstore.sources.secrets" .) }}
- {name: secrets, mountPath: /etc/artstore/secrets, readOnly: true}
{{- end }}
{{- if trim (include "artstore.sources.certificates" .) }}
- {name: certificates, mountPath: /etc/artstore/certificates, readOnly: true}
{{- end }}
{{- if and .admin (include "artstore.devKey" .root) }}
- {name: token, mountPath: /run/artstore, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- end }}
