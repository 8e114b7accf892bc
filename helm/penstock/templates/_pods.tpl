{{/* What all pods have in common. */}}

{{- define "penstock.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "penstock.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Requests, and memory as limit; call with the resources of a part. No CPU limit: throttling
     would show as latency. */}}
{{- define "penstock.resources" -}}
resources:
  requests:
    cpu: {{ .cpu | quote }}
    memory: {{ .memory }}
  limits:
    memory: {{ .memory }}
{{- end -}}

{{/* Environment of whoever talks to the controller. */}}
{{- define "penstock.insiderEnv" -}}
- name: PENSTOCK_CONTROLLER_URL
  value: {{ include "penstock.controllerUrl" . }}
- name: PENSTOCK_INTERNAL_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .Values.secrets.internal }}
      key: token
{{- end -}}

{{/* Environment of whoever opens the registry's database. */}}
{{- define "penstock.databaseEnv" -}}
- name: PENSTOCK_DATABASE_URL
{{- if .Values.database.external.secretName }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.external.secretName }}
      key: {{ .Values.database.external.secretKey }}
{{- else if .Values.database.trial.enabled }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.trial.secretName }}
      key: url
{{- else }}
  value: sqlite+aiosqlite:////var/lib/penstock/penstock.db
{{- end }}
{{- end -}}

{{/* A process's other settings; call with the mapping. */}}
{{- define "penstock.settings" -}}
{{- range $name, $value := . }}
- name: PENSTOCK_{{ upper $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* "true" where the registry is a file on the controller's volume. */}}
{{- define "penstock.onSqlite" -}}
{{- if not (or .Values.database.external.secretName .Values.database.trial.enabled) -}}true{{- end -}}
{{- end -}}

{{/* The hub's token, for whoever asks the hub: the controller pins sources, hosts fetch weights. */}}
{{- define "penstock.hubEnv" -}}
{{- with .Values.secrets.huggingFace }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: token
{{- end }}
{{- end -}}
