{{/* One worker group of the RayCluster; call with (dict "root" $ "group" $group). */}}
{{- define "penstock.workerGroup" -}}
{{- $root := .root -}}
{{- $group := .group -}}
groupName: {{ $group.name }}
replicas: {{ ternary $group.minPods $group.pods $group.scales }}
minReplicas: {{ ternary $group.minPods $group.pods $group.scales }}
maxReplicas: {{ $group.pods }}
rayStartParams:
  # One of Ray's CPUs for each host: no pod gets more hosts than it is meant for.
  num-cpus: {{ $group.hostsPerPod | quote }}
  num-gpus: {{ $group.gpusPerPod | quote }}
  {{- include "penstock.rayPorts" $root | nindent 2 }}
template:
  metadata:
    labels:
      {{- include "penstock.labels" (list $root "engines") | nindent 6 }}
      penstock/pool: {{ $group.pool }}
  spec:
    {{- include "penstock.podSecurity" $root | nindent 4 }}
    # The drain of an engine, and the way of its processes from SIGTERM to their end.
    terminationGracePeriodSeconds: {{ add $group.drainTimeoutS 60 }}
    {{- with $group.runtimeClassName }}
    runtimeClassName: {{ . }}
    {{- end }}
    nodeSelector:
      kubernetes.io/arch: {{ $group.architecture }}
      {{- with $group.nodeSelector }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $group.tolerations }}
    tolerations:
      {{- range . }}
      - key: {{ .key }}
        operator: {{ .operator | default "Exists" }}
        {{- with .value }}
        value: {{ . | quote }}
        {{- end }}
        effect: {{ .effect | default "NoSchedule" }}
      {{- end }}
    {{- end }}
    {{- if $group.computeDomain.enabled }}
    resourceClaims:
      - name: imex
        resourceClaimTemplateName: {{ include "penstock.name" $root }}-{{ $group.name }}-imex
    {{- end }}
    containers:
      - name: ray-worker
        image: {{ include "penstock.image" (list $root $group.image) }}
        imagePullPolicy: {{ (index $root.Values.images $group.image).pullPolicy }}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: [ALL]
            {{- if $group.rdma.resource }}
            # RDMA pins memory, more than RLIMIT_MEMLOCK lets an ordinary process.
            add: [IPC_LOCK]
            {{- end }}
        # Starts the launcher first, then Ray's command as KubeRay has generated it.
        command: [python, -m, serving.cli.node]
        env:
          {{- include "penstock.rayEnv" $root | nindent 10 }}
          - name: PENSTOCK_LAUNCHER_SOCKET
            value: /run/penstock/launcher.sock
          - name: PENSTOCK_CACHE_DIR
            value: /var/cache/penstock/weights
          {{- if and (ne $group.cache.kind "hostPath") (not (hasKey $group.settings "cache_gib")) }}
          {{- with include "penstock.cacheGib" $group.cache.size }}
          - name: PENSTOCK_CACHE_GIB
            value: {{ . | quote }}
          {{- end }}
          {{- end }}
          - name: PENSTOCK_LOG_DIR
            value: /var/log/penstock
          - name: PENSTOCK_ENGINE_ADDRESS
            valueFrom:
              fieldRef:
                fieldPath: status.podIP
          - name: PENSTOCK_DRAIN_TIMEOUT_S
            value: {{ $group.drainTimeoutS | quote }}
          # What vLLM compiles and libraries download stays on the node.
          - name: HOME
            value: /var/cache/penstock/home
          # One OpenMP thread for each engine: several with many each block each other.
          - name: OMP_NUM_THREADS
            value: "1"
          {{- if $root.Values.airGapped }}
          - name: HF_HUB_OFFLINE
            value: "1"
          {{- end }}
          {{- include "penstock.hubEnv" $root | nindent 10 }}
          {{- if $root.Values.secrets.sources }}
          - name: PENSTOCK_SECRETS_DIR
            value: /etc/penstock/sources
          {{- end }}
          {{- include "penstock.settings" $group.settings | nindent 10 }}
          {{- range $name, $value := $group.rdma.environment }}
          - name: {{ $name }}
            value: {{ $value | quote }}
          {{- end }}
        resources:
          requests:
            cpu: {{ $group.resources.cpu | quote }}
            memory: {{ $group.resources.memory }}
          limits:
            memory: {{ $group.resources.memory }}
            {{- if $group.gpusPerPod }}
            {{ $group.gpuResource }}: {{ $group.gpusPerPod }}
            {{- end }}
            {{- with $group.rdma.resource }}
            {{ . }}: {{ $group.rdma.count }}
            {{- end }}
          {{- if $group.computeDomain.enabled }}
          claims:
            - name: imex
          {{- end }}
        volumeMounts:
          - name: tmp
            mountPath: /tmp
          - name: run
            mountPath: /run/penstock
          - name: logs
            mountPath: /var/log/penstock
          - name: shared-memory
            mountPath: /dev/shm
          - name: cache
            mountPath: /var/cache/penstock
          {{- if $root.Values.secrets.sources }}
          - name: sources
            mountPath: /etc/penstock/sources
            readOnly: true
          {{- end }}
    volumes:
      - name: tmp
        emptyDir:
          sizeLimit: 20Gi
      - name: run
        emptyDir:
          medium: Memory
          sizeLimit: 16Mi
      - name: logs
        emptyDir:
          sizeLimit: 5Gi
      - name: shared-memory
        emptyDir:
          medium: Memory
          sizeLimit: {{ $group.sharedMemory }}
      {{- with $root.Values.secrets.sources }}
      - name: sources
        secret:
          secretName: {{ . }}
      {{- end }}
      - name: cache
        {{- if eq $group.cache.kind "hostPath" }}
        hostPath:
          path: {{ $group.cache.hostPath }}
          type: Directory
        {{- else if eq $group.cache.kind "ephemeral" }}
        ephemeral:
          volumeClaimTemplate:
            spec:
              accessModes: [ReadWriteOnce]
              {{- with $group.cache.storageClassName }}
              storageClassName: {{ . }}
              {{- end }}
              resources:
                requests:
                  storage: {{ $group.cache.size }}
        {{- else }}
        emptyDir:
          sizeLimit: {{ $group.cache.size }}
        {{- end }}
{{- end -}}

{{/* Ray's ports, all below 32768: engines get theirs from the kernel, above it, and the network
     policies tell the two apart. */}}
{{- define "penstock.rayPorts" -}}
node-manager-port: "6380"
object-manager-port: "6381"
runtime-env-agent-port: "6382"
dashboard-agent-grpc-port: "6383"
metrics-export-port: "8080"
min-worker-port: "10002"
max-worker-port: "19999"
object-store-memory: "134217728"
{{- end -}}

{{/* Environment of Ray's processes, and by inheritance of the hosts. KubeRay adds RAY_AUTH_MODE,
     RAY_AUTH_TOKEN and the addresses. */}}
{{- define "penstock.rayEnv" -}}
{{ include "penstock.insiderEnv" . }}
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
# The launcher bounds the engines' memory; Ray would kill hosts for it.
- name: RAY_memory_monitor_refresh_ms
  value: "0"
{{- end -}}
