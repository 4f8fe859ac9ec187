{{- /* Names, labels and the image. A component's context is (dict "root" $ "name" "admin-api" "module" "admin"). */ -}}

{{- define "artstore.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 35 | trimSuffix "-" -}}
{{- end }}

{{- define "artstore.selector" -}}
app.kubernetes.io/name: artstore-file-events
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "artstore.labels" -}}
{{ include "artstore.selector" . }}
{{- with .module }}
app.kubernetes.io/part-of: {{ . }}
{{- end }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "artstore.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end }}

{{- /* What tells pods of one version of the program from those of another. */ -}}
{{- define "artstore.version" -}}
{{- include "artstore.image" . | sha256sum | trunc 16 -}}
{{- end }}

{{- define "artstore.replicas" -}}
{{- if kindIs "invalid" .values.replicas -}}
{{- ternary 1 (.usual | default 2) .root.Values.dev.enabled -}}
{{- else -}}{{ int .values.replicas }}{{- end -}}
{{- end }}

{{- /* Partitions of the topic, from its card. */ -}}
{{- define "artstore.partitions" -}}
{{- int (index (.Files.Get "files/topics.toml" | fromToml) "artstore.file-events" "partitions") -}}
{{- end }}

{{- define "artstore.kafka.servers" -}}
{{- ternary (printf "%s-kafka:9092" (include "artstore.fullname" .)) .Values.kafka.bootstrapServers .Values.dev.enabled -}}
{{- end }}

{{- define "artstore.storage.url" -}}
{{- .Values.storage.elementUrl | default (ternary "file:///var/lib/artstore/files" "" .Values.dev.enabled) -}}
{{- end }}

{{- define "artstore.storage.folder" -}}
{{- $url := include "artstore.storage.url" . -}}
{{- if hasPrefix "file://" $url -}}{{ trimPrefix "file://" $url }}{{- end -}}
{{- end }}

{{- define "artstore.publicUrl" -}}
{{- with .Values.adminApi -}}
{{- if .publicUrl -}}{{ .publicUrl }}
{{- else if .ingress.enabled -}}{{ ternary "https" "http" (ne .ingress.tlsSecret "") }}://{{ .ingress.host }}
{{- end -}}
{{- end -}}
{{- end }}
