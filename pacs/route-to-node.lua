-- Orthanc: sends each photograph that it stores to the node, and again what did not arrive.
--
-- Orthanc does not repeat a transfer that failed. This script does: when another transfer
-- succeeds (the node is back), and each minute ("LuaHeartBeatPeriod", Orthanc 1.11.1 or
-- later). Orthanc keeps "JobsHistorySize" failed transfers, over a restart too ("SaveJobs").

local NODE = 'medlocker'       -- its name in "DicomModalities"
local NODE_AET = 'MEDLOCKER'   -- its AE title: listen.ae_title of node.yaml
local LOCKED = 'MedLocker locked'   -- Series Description of what the node made

-- The classes that may hold a fundus photograph; pacs/conformance.md lists the same.
local CLASSES = {
  ['1.2.840.10008.5.1.4.1.1.77.1.5.1'] = true,   -- Ophthalmic Photography 8 Bit
  ['1.2.840.10008.5.1.4.1.1.77.1.5.2'] = true,   -- Ophthalmic Photography 16 Bit
  ['1.2.840.10008.5.1.4.1.1.77.1.5.5'] = true,   -- Wide Field, Stereographic Projection
  ['1.2.840.10008.5.1.4.1.1.77.1.5.6'] = true,   -- Wide Field, 3D Coordinates
  ['1.2.840.10008.5.1.4.1.1.77.1.4'] = true,     -- VL Photographic
  ['1.2.840.10008.5.1.4.1.1.7'] = true,          -- Secondary Capture
  ['1.2.840.10008.5.1.4.1.1.7.2'] = true,        -- Multi-frame Grayscale Byte
  ['1.2.840.10008.5.1.4.1.1.7.3'] = true,        -- Multi-frame Grayscale Word
  ['1.2.840.10008.5.1.4.1.1.7.4'] = true,        -- Multi-frame True Color
}

function OnStoredInstance(instanceId, tags, metadata, origin)
  -- What came from the node, or was made by it, must not go round in circles.
  if origin['RemoteAet'] == NODE_AET or tags['SeriesDescription'] == LOCKED then
    return
  end
  if CLASSES[tags['SOPClassUID']] then
    -- Not SendToModality(): its job succeeds even where the transfer failed.
    local what = {Resources = {instanceId}, Asynchronous = true, Permissive = false}
    RestApiPost('/modalities/' .. NODE .. '/store', DumpJson(what, true))
  end
end

-- Transfers to the node that failed: their job, and when it was last begun.
local failed = {}
local WAIT = 5   -- seconds before the same transfer is begun again

local function IsToNode(job)
  return job and job['Type'] == 'DicomModalityStore' and job['Content']['RemoteAet'] == NODE_AET
end

local function Repeat()
  for jobId, begun in pairs(failed) do
    if os.time() - begun >= WAIT then
      failed[jobId] = os.time()
      RestApiPost('/jobs/' .. jobId .. '/resubmit', '{}')
    end
  end
end

function Initialize()
  for _, job in pairs(ParseJson(RestApiGet('/jobs?expand')) or {}) do
    if job['State'] == 'Failure' and IsToNode(job) then
      failed[job['ID']] = 0
    end
  end
end

function OnJobFailure(jobId)
  if IsToNode(ParseJson(RestApiGet('/jobs/' .. jobId))) then
    failed[jobId] = failed[jobId] or os.time()
  end
end

function OnJobSuccess(jobId)
  if IsToNode(ParseJson(RestApiGet('/jobs/' .. jobId))) then
    failed[jobId] = nil
    Repeat()
  end
end

function OnHeartBeat()
  Repeat()
end
