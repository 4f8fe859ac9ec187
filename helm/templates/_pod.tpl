{{- /* What every pod has. Its rights are none: no root, no capabilities, nothing to write but what is mounted, no token. */ -}}

{{- define "artstore.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- include "artstore.scheduling" .root }}
{{- end }}

{{- define "artstore.scheduling" -}}
{{- with .Values.pods }}
{{- with .serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "artstore.podMetadata" -}}
labels:
  {{- include "artstore.labels" . | nindent 2 }}
  artstore/version: {{ include "artstore.version" .root | quote }}
  {{- if .readsTopic }}
  artstore/reads-topic: "true"
  {{- end }}
{{- with .root.Values.pods.annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Replicas apart from each other, those of one roll-out counted by themselves; better together than not at all. */ -}}
{{- define "artstore.spread" -}}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{- include "artstore.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "artstore.container" -}}
image: {{ include "artstore.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- with .resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Alive says only that the event loop turns; ready names what is missing, and so never restarts a pod. A node that is short of
processors takes a minute for a start, and a start that is cut short makes it shorter of them. */ -}}
{{- define "artstore.probes" -}}
startupProbe:
  httpGet: {path: /health/live, port: management}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 300
readinessProbe:
  httpGet: {path: /health/ready, port: management}
  periodSeconds: 3
  timeoutSeconds: 4
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /health/live, port: management}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{- define "artstore.drain" -}}
{{- /* Requests get 10 s; a relay or projector whose broker or database hangs gives up after 40 s. */ -}}
terminationGracePeriodSeconds: 60
{{- end }}
