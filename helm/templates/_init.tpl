{{- /*
What a pod does before its process: an Admin pod lets the Query pods go first; in dev mode, where broker and database
come with the release, and so after its hooks, a pod sees to the schema and the topics itself.
*/ -}}
{{- define "artstore.init" -}}
{{- $seconds := int .root.Values.upgrade.consumersFirstSeconds -}}
{{- $first := and (eq .module "admin") (gt $seconds 0) -}}
{{- $name := include "artstore.fullname" .root -}}
{{- $container := include "artstore.container" (dict "root" .root "resources" .root.Values.migrations.resources) -}}
{{- if or $first .root.Values.dev.enabled -}}
initContainers:
  {{- if $first }}
  - name: consumers-first
    command: [python, -c]
    args:
      - {{ .root.Files.Get "files/consumers_first.py" | quote }}
      - {{ $name }}-query-pods
      - {{ $name }}-query-pods-{{ include "artstore.version" .root }}
      - {{ $seconds | quote }}
    {{- $container | nindent 4 }}
  {{- end }}
  {{- if .root.Values.dev.enabled }}
  - name: wait
    command: [python, -c]
    args:
      - {{ .root.Files.Get "files/wait_for.py" | quote }}
      - {{ $name }}-postgres:5432
      {{- if .kafkaUser }}
      - {{ $name }}-kafka:9092
      {{- end }}
    {{- $container | nindent 4 }}
  - name: migrate
    command: [artstore, {{ .module }}, migrate]
    {{- $container | nindent 4 }}
    env:
      {{- include "artstore.env" . | nindent 6 }}
    volumeMounts:
      {{- include "artstore.mounts" . | nindent 6 }}
  {{- if and .admin (include "artstore.devKey" .root) }}
  # What an issuer would give for client credentials.
  - name: token
    command: [python, -c]
    args:
      - |
        import subprocess, sys
        with open("/run/artstore/token", "w") as file:
            sys.exit(subprocess.run(sys.argv[1:], stdout=file).returncode)
      - artstore
      - token
      - --key=/etc/artstore/key/tls.key
      - --issuer={{ include "artstore.issuer" .root }}
      - --audience={{ .root.Values.auth.audience }}
      - --subject={{ .name }}
      - --scope=files:read
      - --scope=sync:admin
      - --lifetime=365d
    {{- $container | nindent 4 }}
    volumeMounts:
      - {name: key, mountPath: /etc/artstore/key, readOnly: true}
      - {name: token, mountPath: /run/artstore}
  {{- end }}
  {{- if .kafkaUser }}
  - name: topics
    command: [artstore, topics, ensure, --replication-factor, "1"]
    {{- $container | nindent 4 }}
    env:
      {{- include "artstore.env" . | nindent 6 }}
      {{- include "artstore.env.kafka" . | nindent 6 }}
    volumeMounts:
      {{- include "artstore.mounts" . | nindent 6 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}
