{{- /*
What each component is, in one place: its module, the URLs of its databases (as secret, key and the file that it reads),
who it is at the broker (kafkaUser), whether clients ask it (auth), whether it asks the Admin module (admin). As YAML.
*/ -}}

{{- define "artstore.url" -}}
{{- $root := index . 0 -}}{{- $database := index . 1 -}}{{- $role := index . 2 -}}{{- $file := index . 3 -}}
{{- $values := index $root.Values.postgres $database -}}
- secret: {{ ternary (printf "%s-dev" (include "artstore.fullname" $root)) $values.existingSecret $root.Values.dev.enabled }}
  key: {{ ternary (printf "%s-%s" $database $role) (index $values.keys $role) $root.Values.dev.enabled }}
  file: {{ $file }}
{{- end }}

{{- define "artstore.component" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
name: {{ $name }}
{{- if has $name (list "query-api" "query-projector" "query-maintenance") }}
readsTopic: true
{{- end }}
{{- if eq $name "admin-api" }}
module: admin
urls: {{- include "artstore.url" (list $root "admin" "write" "admin_database_url") | nindent 2 }}
auth: true
{{- else if eq $name "admin-relay" }}
module: admin
urls: {{- include "artstore.url" (list $root "admin" "write" "admin_database_url") | nindent 2 }}
kafkaUser: relay
{{- else if eq $name "query-api" }}
module: query
urls:
  {{- include "artstore.url" (list $root "query" "write" "query_database_url") | nindent 2 }}
  {{- include "artstore.url" (list $root "query" "read" "query_search_database_url") | nindent 2 }}
kafkaUser: queryApi
auth: true
admin: true
{{- else if eq $name "query-projector" }}
module: query
urls: {{- include "artstore.url" (list $root "query" "write" "query_database_url") | nindent 2 }}
kafkaUser: projector
{{- else if eq $name "query-maintenance" }}
module: query
urls: {{- include "artstore.url" (list $root "query" "maintain" "query_database_url") | nindent 2 }}
kafkaUser: maintenance
admin: true
{{- else if eq $name "admin-migrate" }}
urls: {{- include "artstore.url" (list $root "admin" "migrate" "admin_database_url") | nindent 2 }}
{{- else if eq $name "query-migrate" }}
urls: {{- include "artstore.url" (list $root "query" "migrate" "query_database_url") | nindent 2 }}
{{- else if has $name (list "admin-roles" "query-roles") }}
{{- $database := trimSuffix "-roles" $name }}
urls:
  - secret: {{ $root.Values.postgres.roles.existingSecret }}
    key: {{ index $root.Values.postgres.roles.keys $database }}
    file: {{ $database }}_database_url
{{- else if eq $name "topics" }}
kafkaUser: topics
{{- else if eq $name "rebuild" }}
module: query
{{- end }}
{{- end }}
