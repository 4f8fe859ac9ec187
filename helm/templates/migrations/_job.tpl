{{- /*
A Job that runs before the processes of an install or upgrade, and may run twice. In dev mode there is no database before
an install, so pods do it themselves then (artstore.init). A Job that failed stays for a day, so that its log can be read.
*/ -}}
{{- define "artstore.hook" -}}
annotations:
  helm.sh/hook: {{ ternary "pre-upgrade" "pre-install,pre-upgrade" .root.Values.dev.enabled }}
  helm.sh/hook-weight: {{ .weight | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- define "artstore.job" -}}
backoffLimit: 6
activeDeadlineSeconds: {{ .root.Values.migrations.deadlineSeconds }}
ttlSecondsAfterFinished: 86400
{{- end }}
